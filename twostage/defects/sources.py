"""Folders of other images to cut defects from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from twostage.config import DataConfig
from twostage.data import GOOD, Finding, Sample, read_image, require_clean, resize_shorter_side
from twostage.data.ahead import in_order
from twostage.data.homes import estimated_bytes
from twostage.data.layout import is_litter
from twostage.data.order import evenly_spread
from twostage.data.samples import finding_of
from twostage.defects.pools import most_sources
from twostage.errors import DataError


def load_sources(
    folder: Path,
    config: DataConfig,
    color: Literal["gray", "rgb"],
    *,
    smallest: int,
    note: Callable[[str], None] = lambda message: None,
) -> list[Tensor]:
    """The images in a folder and its subfolders, in the order of their paths; of very many, some evenly spread.

    Args:
        folder: of images of any kind and size. Hidden files and folders, Thumbs.db and desktop.ini are passed over.
        config: the size limit.
        color: of the target images.
        smallest: images with a shorter side below this many pixels are enlarged to it.
        note: is told where not all of them are taken.

    Raises:
        DataError: the folder is missing or holds no file, or files are no accepted images; all of them are listed.
    """
    found = (path for path in folder.rglob("*") if path.is_file())
    paths = sorted(path for path in found if not any(map(is_litter, path.relative_to(folder).parts)))
    if not paths:
        problem = "holds no file" if folder.is_dir() else "is no folder"
        raise DataError(f"defects.sources {folder} {problem}; accepted: a folder of images to cut defects from")
    samples = [Sample(path, GOOD) for path in paths]
    size = estimated_bytes(replace(config, image_size=None, color=color), samples) / len(paths)
    chosen = evenly_spread(len(paths), most_sources(size)).tolist()
    if len(chosen) < len(paths):
        note(f"defects are cut from {len(chosen):,} of the {len(paths):,} images in {folder}, evenly spread")

    def read(number: int) -> Tensor | Finding:
        path = paths[number]
        try:
            image = read_image(path, color=color, max_pixels=config.max_pixels)
        except DataError as error:
            return finding_of(path, error)
        return resize_shorter_side(image, smallest) if min(image.shape[1:]) < smallest else image

    images: list[Tensor] = []
    findings: list[Finding] = []
    for outcome in in_order(chosen, read):
        if isinstance(outcome, Finding):
            findings.append(outcome)
        else:
            images.append(outcome)
    require_clean(findings)
    return images
