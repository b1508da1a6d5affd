"""Images of any sizes in one piece of memory."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor


def to_unit_range(image: Tensor) -> Tensor:
    """uint8 0..255 or float images -> float32 in [0, 1]."""
    return image.to(torch.float32).div_(255) if image.dtype == torch.uint8 else image.to(torch.float32)


def pack(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images [C, H, W] one behind the other, [N], and where they lie, int64 [S, 3]: offset, height, width.

    Images that lie in one piece of memory already (:func:`into_one_piece`) are not copied.
    """
    first = images[0]
    pieces = {image.untyped_storage().data_ptr() for image in images}
    if len(pieces) == 1 and all(image.is_contiguous() for image in images):
        offsets = [int(image.storage_offset()) for image in images]
        values = first.new_empty(0).set_(first.untyped_storage())
    else:
        if any(image.dtype != torch.uint8 for image in images):
            images = [to_unit_range(image) for image in images]
        offsets = [0, *accumulate(image.numel() for image in images)][:-1]
        values = torch.cat([image.flatten() for image in images])
    layout = [(offset, image.shape[1], image.shape[2]) for offset, image in zip(offsets, images, strict=True)]
    return values, torch.tensor(layout, dtype=torch.int64)


def into_one_piece(images: list[Tensor]) -> list[Tensor]:
    """The same images in one piece of memory. Empties the list, so that memory does not hold them twice."""
    if not images:
        return []
    integers = all(image.dtype == torch.uint8 for image in images)
    values = torch.empty(sum(image.numel() for image in images), dtype=torch.uint8 if integers else torch.float32)
    placed = []
    offset = 0
    images.reverse()
    while images:
        image = images.pop()
        place = values[offset : offset + image.numel()].view(image.shape)
        offset += image.numel()
        placed.append(place.copy_(image if integers else to_unit_range(image)))
    return placed


def moved(images: list[Tensor], device: torch.device) -> list[Tensor]:
    """The same images on another device, in one piece of memory and one transfer."""
    if device.type == "cpu" or not images:
        return images
    values, layout = pack(images)
    values = values.to(device)
    channels = images[0].shape[0]
    return [
        values[offset : offset + channels * height * width].view(channels, height, width)
        for offset, height, width in layout.tolist()
    ]
