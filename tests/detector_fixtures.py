"""A small detector and the data it is trained on."""

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from image_files import noise, write
from torch import Tensor

from twostage import Config, DataConfig, Detector, ModelConfig, Prediction, Progress, ScoringConfig, StageConfig
from twostage.config import LossConfig

SCORING = ScoringConfig(map="residual", lpips=False, smoothing=1.0)


def make_config(root: Path) -> Config:
    return Config(
        data=DataConfig(root=root, image_size=96, validation_fraction=0.34),
        model=ModelConfig(patch_size=64, latent_channels=4),
        first_stage=StageConfig(1, LossConfig("aw-ssim"), defective=False),
        second_stage=StageConfig(1, LossConfig("ssim+l1"), defective=True),
        scoring=SCORING,
        batch_size=8,
        checkpoint_every=1,
        device="cpu",
    )


def make_root(root: Path, *, train: int = 6) -> Path:
    """Gray images of 100x120 pixels; two have a bright square, which its mask shows."""
    for index in range(train):
        write(root / f"train/good/{index}.png", noise(index, 100, 120) // 4)
    for index in range(3):
        write(root / f"test/good/{index}.png", noise(50 + index, 100, 120) // 4)
    for index in range(2):
        image, mask = noise(60 + index, 100, 120) // 4, np.zeros((100, 120), dtype=np.uint8)
        image[20:50, 30 + index : 60], mask[20:50, 30 + index : 60] = 250, 255
        write(root / f"test/spot/{index}.png", image)
        write(root / f"ground_truth/spot/{index}_mask.png", mask)
    return root


class Recorder(Progress):
    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int]] = []
        self.notes: list[str] = []

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.updates.append((task, done, total))

    def note(self, message: str) -> None:
        self.notes.append(message)


class Trained(NamedTuple):
    """A detector, and what its training left."""

    detector: Detector
    run: Path
    recorder: Recorder


def assert_same_prediction(found: Prediction, accepted: Prediction) -> None:
    assert (found.score, found.defective) == (accepted.score, accepted.defective)
    for name in ("image", "reconstruction", "residual", "score_map"):
        assert torch.equal(getattr(found, name), getattr(accepted, name)), name


def assert_same_weights(found: Detector, accepted: Detector) -> None:
    state = accepted.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.model.state_dict().items())


def image(height: int = 96, width: int = 96, channels: int = 1) -> Tensor:
    return torch.from_numpy(noise(77, height, width, channels)).permute(2, 0, 1).contiguous()


def changed(detector: Detector, **attributes: object) -> Detector:
    """The detector with some attributes replaced."""
    other = copy.copy(detector)
    vars(other).update(attributes)
    return other


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
