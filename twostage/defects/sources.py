"""Where defects are cut from: a pool of images, ranked for every target by colour and appearance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from twostage.config import DataConfig
from twostage.data import read_image, require_clean, resize_shorter_side
from twostage.data.patches import to_unit_range
from twostage.data.samples import finding_of
from twostage.errors import DataError


def describe(image: Tensor) -> Tensor:
    """Colour and appearance of an image as a vector: [C, H, W] -> [4 C].

    For each channel the mean and standard deviation (colour, contrast) and the mean absolute slopes along both axes
    (fineness and direction of the texture).
    """
    values = to_unit_range(image)
    slope_y = values.diff(dim=1).abs().mean(dim=(1, 2))
    slope_x = values.diff(dim=2).abs().mean(dim=(1, 2))
    return torch.cat((values.mean(dim=(1, 2)), values.std(dim=(1, 2)), slope_y, slope_x))


class SourcePool:
    """Source images and, for every target image, those nearest to it.

    Args:
        targets: the images that defects are pasted into, [C, H, W] each.
        sources: the images to cut from, [C, H, W] each; None takes the targets, none of them for itself.
        candidates: how many sources each target may draw from.

    Raises:
        DataError: there is no source, or a target would have only itself.
    """

    def __init__(self, targets: Sequence[Tensor], sources: Sequence[Tensor] | None, candidates: int) -> None:
        own = sources is None
        self.images = tuple(targets if sources is None else sources)
        available = len(self.images) - int(own)
        if available < 1:
            raise DataError(
                f"the pool of defect sources holds {len(self.images)} image(s); accepted: at least {1 + int(own)} "
                "(add normal images, or name a folder of other images with defects.sources)"
            )
        target_features = torch.stack([describe(image) for image in targets])
        source_features = target_features if own else torch.stack([describe(image) for image in self.images])
        # Every feature counts by its spread over the pool, so that none decides by its unit alone.
        spread = torch.cat((target_features, source_features)).std(dim=0).clamp_min(1e-6)
        distance = torch.cdist(target_features / spread, source_features / spread)
        if own:
            distance.fill_diagonal_(torch.inf)
        self.nearest = distance.argsort(dim=1, stable=True)[:, : min(candidates, available)]  # [targets, candidates]


def load_sources(folder: Path, config: DataConfig, color: Literal["gray", "rgb"], *, smallest: int) -> list[Tensor]:
    """Every image in a folder and its subfolders, in the order of their paths.

    Args:
        folder: of images of any kind and size.
        config: the size limit.
        color: of the target images.
        smallest: images with a shorter side below this many pixels are enlarged to it.

    Raises:
        DataError: the folder is missing or holds no file, or files are no accepted images; all of them are listed.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not paths:
        problem = "holds no file" if folder.is_dir() else "is no folder"
        raise DataError(f"defects.sources {folder} {problem}; accepted: a folder of images to cut defects from")
    images, findings = [], []
    for path in paths:
        try:
            image = read_image(path, color=color, max_pixels=config.max_pixels)
        except DataError as error:
            findings.append(finding_of(path, error))
            continue
        images.append(resize_shorter_side(image, smallest) if min(image.shape[1:]) < smallest else image)
    require_clean(findings)
    return images
