"""A training small enough for tests, and processes that run it (here, so that they start quickly)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twostage.autoencoder import Autoencoder
from twostage.config import ComputeConfig, DefectConfig, LossConfig, ModelConfig, StageConfig
from twostage.data.patches import PatchStore
from twostage.defects import DefectSampler, SourcePool
from twostage.losses import PerceptualDistance
from twostage.stopping import TrainingInterrupted
from twostage.trainer import StepReport, Trainer

PATCH = 64
MODEL = ModelConfig(patch_size=PATCH, latent_channels=4)
STAGES = (
    StageConfig(epochs=2, loss=LossConfig("aw-ssim"), defective=False),
    StageConfig(epochs=2, loss=LossConfig("ssim+l1"), defective=True, learning_rate=1e-3),
)


def noise_image(seed: int, height: int = PATCH, width: int = PATCH, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=generator)


def make_images(count: int = 2) -> list[Tensor]:
    """Two patches each."""
    return [noise_image(seed, PATCH, PATCH + 32) for seed in range(count)]


def make_sampler(config: DefectConfig, images: Sequence[Tensor], seed: int = 0) -> DefectSampler:
    return DefectSampler(config, SourcePool(images, None, config.candidates), PATCH, seed)


class DoublePatches(PatchStore):
    """Patches in float64: sums taken in another order then give other digits far behind those that are compared."""

    def patches(self, samples: Tensor, epoch: int) -> Tensor:
        return super().patches(samples, epoch).double()


def make_trainer(
    images: Sequence[Tensor] | None = None,
    *,
    stages: Sequence[StageConfig] = STAGES,
    lpips: PerceptualDistance | None = None,
    fingerprint: dict[str, Any] | None = None,
    batch_size: int = 2,
    double: bool = False,
    compute: ComputeConfig | None = None,
) -> Trainer:
    """With the default images and stages: 2 steps in an epoch, 4 in a stage, 8 in all.

    In float32, unless ``compute`` asks for another precision.
    """
    images = make_images() if images is None else images
    compute = compute or ComputeConfig()
    if compute.precision == "auto":
        compute = replace(compute, precision="float32")  # the same on every machine
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Autoencoder(images[0].shape[0], MODEL)
    return Trainer(
        model.double() if double else model,
        stages,
        (DoublePatches if double else PatchStore)(images, PATCH, 0),
        make_sampler(DefectConfig(), images),
        lpips,
        batch_size=batch_size,
        names=[f"image-{index}.png" for index in range(len(images))],
        fingerprint={"seed": 0, "stage": {"epochs": 2}} if fingerprint is None else fingerprint,
        compute=compute,
    )


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Every weight, running statistic and optimiser value."""
    state = dict(trainer.model.state_dict())
    if trainer._optimizer is not None:
        for index, values in trainer._optimizer.state_dict()["state"].items():
            state.update({f"optimizer.{index}.{name}": value for name, value in values.items()})
    return {name: value.clone() for name, value in state.items()}


def assert_equal_bits(found: Mapping[str, Tensor], accepted: Mapping[str, Tensor]) -> None:
    assert found.keys() == accepted.keys()
    differing = [name for name, value in accepted.items() if not torch.equal(found[name], value)]
    assert not differing


def train_until_killed(folder: Path, announcements: Connection) -> None:
    """Resume, train on with a checkpoint after every step, and announce every step, the end and a Ctrl-C."""
    torch.set_num_threads(1)
    trainer = make_trainer(stages=tuple(StageConfig(3, stage.loss, stage.defective) for stage in STAGES))
    trainer.resume(folder)

    def announce(report: StepReport) -> None:
        announcements.send(report.step)

    announcements.send("started")
    try:
        trainer.run(checkpoints=folder, checkpoint_every=1, on_step=announce)
    except TrainingInterrupted:
        announcements.send("interrupted")
    else:
        announcements.send("finished")


def at_step(step: int, action: Callable[[], object]) -> Callable[[StepReport], None]:
    """A callback that acts once ``step`` steps are done."""

    def on_step(report: StepReport) -> None:
        if report.step + 1 == step:
            action()

    return on_step
