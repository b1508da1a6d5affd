"""Images as training keeps them on a disk, and what is known of each beside its pixels."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from twostage.config import DataConfig
from twostage.data.images import read_image_and_luma, resize_shorter_side
from twostage.data.mapped import MappedImages

MOST_FEATURES = 12
"""Numbers that describe an image, at most: four for each channel."""

Describe = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PreparedImage:
    """An image and what is kept beside it."""

    pixels: npt.NDArray[Any]  # [C, H, W] uint8, or float32 in [0, 1]
    features: npt.NDArray[np.float32]  # [4 C]
    digest: int
    """Of the file's own pixels: equal for images of the same pixels, whatever their file format."""


@dataclass(frozen=True)
class Prepared:
    """Images on a disk."""

    images: MappedImages
    features: npt.NDArray[np.float32]  # [N, 4 C]
    digests: npt.NDArray[np.uint64]  # [N]

    def part(self, first: int, last: int) -> "Prepared":
        """Images ``first`` to ``last`` - 1."""
        return Prepared(self.images[first:last], self.features[first:last], self.digests[first:last])


@dataclass(frozen=True)
class Preparer:
    """How a file becomes what is kept of it.

    Args:
        config: the size and the limits.
        color: of all images.
        describe: an image [C, H, W] -> the numbers [4 C] that say what it looks like.
    """

    config: DataConfig
    color: Literal["gray", "rgb"]
    describe: Describe

    @property
    def channels(self) -> int:
        return 1 if self.color == "gray" else 3

    def __call__(self, path: Path) -> PreparedImage:
        """Raises:
        DataError: as :func:`twostage.data.images.read_image`.
        """
        stored, gray = read_image_and_luma(path, color=self.color, max_pixels=self.config.max_pixels)
        image = resize_shorter_side(stored, self.config.image_size).contiguous()
        digest = int.from_bytes(pixel_digest(gray)[:8], "little")
        return PreparedImage(image.numpy(), self.describe(image).numpy(), digest)


def pixel_digest(image: Tensor) -> bytes:
    """16 bytes that are equal for images [1, H, W] of the same pixels."""
    digest = hashlib.blake2b(f"{image.dtype} {tuple(image.shape)}".encode(), digest_size=16)
    digest.update(image.numpy().data)
    return digest.digest()
