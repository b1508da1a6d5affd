"""Reconstruction of images of any size from overlapping patches, blended without seams."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

PATCHES_AT_ONCE = 32
"""A batch large enough to keep the cores busy and small enough for 512-pixel patches."""


def blending_window(size: int) -> Tensor:
    """Weights that are 1 in the middle of a patch and fade to nothing at its borders: [P, P]."""
    position = (torch.arange(size, dtype=torch.float32) + 0.5) / size
    fade = torch.sin(torch.pi * position) ** 2
    return fade.unsqueeze(1) * fade.unsqueeze(0)


def patch_starts(length: int, size: int, overlap: float) -> list[int]:
    """Starts of evenly spread patches that cover 0..length, neighbours sharing at least ``overlap`` of a patch."""
    stride = max(int(size * (1 - overlap)), 1)
    count = -(-(length - size) // stride) + 1
    return [round(index * (length - size) / max(count - 1, 1)) for index in range(count)]


@torch.no_grad()
def reconstruct(model: nn.Module, image: Tensor, *, patch_size: int, overlap: float, batch_size: int) -> Tensor:
    """The model's reconstruction of a whole image, or of several of one size together.

    The image is continued by reflection on all sides, so that its border too lies inside patches, and cut into
    patches whose reconstructions are averaged under :func:`blending_window`.

    Args:
        image: [C, H, W], or [N, C, H, W], in [0, 1]; any H and W of at least ``patch_size``.
        overlap: share of a patch that neighbours have in common, in [0, 1).
        batch_size: patches at a time, of all images; a patch of each at least.

    Returns:
        As ``image``, in [0, 1].
    """
    images = image.view(-1, *image.shape[-3:])
    margin = patch_size // 8
    padded = F.pad(images, (margin,) * 4, mode="reflect")
    height, width = padded.shape[2:]
    places = [
        (slice(top, top + patch_size), slice(left, left + patch_size))
        for top in patch_starts(height, patch_size, overlap)
        for left in patch_starts(width, patch_size, overlap)
    ]
    window = blending_window(patch_size).to(image.device)
    total, weight = torch.zeros_like(padded), torch.zeros_like(padded[:1, :1])
    at_once = max(1, batch_size // len(images))
    for first in range(0, len(places), at_once):
        batch = places[first : first + at_once]
        patches = torch.cat([padded[:, :, rows, columns] for rows, columns in batch])
        for (rows, columns), rebuilt in zip(batch, model(patches).split(len(images)), strict=True):
            total[:, :, rows, columns] += window * rebuilt
            weight[:, :, rows, columns] += window
    blended = (total / weight)[:, :, margin:-margin, margin:-margin]
    return blended.reshape(image.shape)
