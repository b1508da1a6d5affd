"""Whole sets of images in memory, resized and in one colour format."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from twostage.config import DataConfig
from twostage.data.ahead import in_order
from twostage.data.images import read_image, resize_shorter_side
from twostage.data.samples import Sample


def load_image(sample: Sample, config: DataConfig, color: Literal["gray", "rgb"]) -> Tensor:
    """One image as the detector sees it: [C, H, W], uint8 or float32 in [0, 1], resized to ``config.image_size``."""
    image = read_image(sample.path, color=color, max_pixels=config.max_pixels)
    return resize_shorter_side(image, config.image_size)


def load_images(
    samples: Sequence[Sample],
    config: DataConfig,
    color: Literal["gray", "rgb"],
    progress: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """All images of ``samples``, read by threads; ``progress`` is called with the number loaded and that of all."""
    images: list[Tensor] = []
    for image in in_order(samples, lambda sample: load_image(sample, config, color)):
        images.append(image)
        if progress is not None:
            progress(len(images), len(samples))
    return images
