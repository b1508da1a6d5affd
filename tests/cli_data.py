"""Tiny data sets and settings for the tests of the command line: seconds of training, no LPIPS."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from image_files import write

SIDE = 96
QUICK = (
    "--data.image-size=96",
    "--model.patch-size=64",
    "--first-stage.epochs=1",
    "--second-stage.epochs=1",
    "--second-stage.loss.name=aw-ssim",
    "--scoring.no-lpips",
    "--scoring.map=residual",
    "--scoring.smoothing=2",
    "--scoring.image-fraction=0.01",
    "--batch-size=4",
    "--device=cpu",
)
"""Flags for one epoch in each stage."""


def texture(seed: int) -> npt.NDArray[np.uint8]:
    """A soft stripe pattern with a little noise, 96x96."""
    generator = np.random.default_rng(seed)
    x = np.arange(SIDE) + generator.uniform(0, 8)
    rows = 128 + 40 * np.sin(2 * np.pi * x / 8)
    return (rows + generator.normal(0, 6, (SIDE, SIDE))).clip(0, 255).astype(np.uint8)


def make_surface(root: Path, *, train: int = 5, good: int = 2, defective: int = 2) -> Path:
    """A clean data set in MVTec layout with one defect, "spot", and masks; ``good`` of 0 makes no test set."""
    for index in range(train):
        write(root / f"train/good/{index:03d}.png", texture(index))
    for index in range(good):
        write(root / f"test/good/{index:03d}.png", texture(100 + index))
    for index in range(defective if good else 0):
        image, mask = texture(200 + index), np.zeros((SIDE, SIDE), dtype=np.uint8)
        mask[30:50, 40 : 60 + index] = 255
        image[mask > 0] = 255
        write(root / f"test/spot/{index:03d}.png", image)
        write(root / f"ground_truth/spot/{index:03d}_mask.png", mask)
    return root
