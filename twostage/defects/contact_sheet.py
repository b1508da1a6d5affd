"""A picture of what the defect generator makes, for a person to look at before training."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.data.patches import Patches
from twostage.defects.sampler import DefectSampler

CAPTIONS = ("normal", "defective", "opacity")
_ROWS = 8
_GAP = 4
_GROUP_GAP = 24
_CAPTION_HEIGHT = 18


def contact_sheet(store: Patches, sampler: DefectSampler, *, samples: int, epoch: int) -> Tensor:
    """The first samples of an epoch as a training stage with defects sees them.

    Every sample is a row: the normal patch, the patch with its defects, and their opacity (white where the cut-out
    covers the patch). Rows continue in a further group of columns after every eighth. Samples that the generator leaves
    normal are shown too: their opacity is black.

    Args:
        store: the normal patches.
        sampler: draws the defects.
        samples: how many; no more than the epoch has are drawn.
        epoch: counted over both stages from 0.

    Returns:
        A picture [3, H, W] in [0, 1] with captions over its columns.

    Raises:
        ValueError: ``samples`` is below 1.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; accepted: at least 1")
    chosen = store.samples_at(torch.arange(min(samples, store.patches_per_epoch)), epoch)
    normal = store.patches(chosen, epoch)
    defective, opacity = sampler.paste(normal, sampler.draw(chosen, store.image_of(chosen), epoch))
    rows = [
        torch.cat([F.pad(part.expand(3, -1, -1), (0, _GAP, 0, _GAP), value=1.0) for part in parts], dim=2)
        for parts in zip(normal, defective, opacity, strict=True)
    ]
    groups = [torch.cat(rows[first : first + _ROWS], dim=1) for first in range(0, len(rows), _ROWS)]
    tallest = groups[0].shape[1]
    padded = [F.pad(group, (0, _GROUP_GAP, 0, tallest - group.shape[1]), value=1.0) for group in groups]
    sheet = torch.cat(padded, dim=2)[:, :-_GAP, : -_GAP - _GROUP_GAP]
    caption = _caption(sheet.shape[2], _columns(len(groups), store.patch_size))
    return torch.cat((caption, sheet), dim=1)


def _columns(groups: int, patch_size: int) -> list[tuple[int, str]]:
    """Left edge and caption of every column."""
    width = patch_size + _GAP
    return [
        (group * (len(CAPTIONS) * width + _GROUP_GAP) + index * width, caption)
        for group in range(groups)
        for index, caption in enumerate(CAPTIONS)
    ]


def _caption(width: int, columns: Sequence[tuple[int, str]]) -> Tensor:
    picture = Image.new("L", (width, _CAPTION_HEIGHT), 255)
    draw = ImageDraw.Draw(picture)
    for left, caption in columns:
        draw.text((left + 2, 3), caption, fill=0)
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float() / 255
    return values.view(1, _CAPTION_HEIGHT, width).expand(3, -1, -1)
