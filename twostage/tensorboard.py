"""The course of a training for TensorBoard: curves and pictures."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twostage.errors import ConfigError
from twostage.trainer import StepReport, Trainer

_PICTURES = 8


def summary_writer() -> type[Any]:
    """TensorBoard's writer of files.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"TensorBoard is asked for and cannot be imported ({error}); accepted: pip install "
            "'twostage[tensorboard]', or without it"
        ) from error
    return SummaryWriter


class Board:
    """Scalars every few steps and pictures every epoch, for TensorBoard.

    Args:
        trainer: whose steps they are.
        folder: for TensorBoard's files.
        every: steps between two points of a curve.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, trainer: Trainer, folder: Path, every: int = 10) -> None:
        writer = summary_writer()
        self.trainer = trainer
        self.every = every
        # Points of a course that a resumed run has left are hidden.
        self._writer: Any = writer(str(folder), purge_step=trainer.step)

    def add(self, report: StepReport, speed: float | None) -> None:
        """Add a step."""
        last = report.step + 1 == self.trainer.total_steps
        if report.step % self.every == 0 or last:
            values = {"loss": report.loss, "sigma": report.sigma, "epoch": report.moment.epoch}
            values |= {f"terms/{name}": value for name, value in report.terms.items()}
            if speed is not None:
                values["patches_per_second"] = speed
            for name, value in values.items():
                self._writer.add_scalar(name, value, report.step)
        if (report.moment.starts_epoch or last) and self.trainer.last_batch is not None:
            self._writer.add_image(
                "input, reconstruction, target", picture(*self.trainer.last_batch), self.trainer.step - 1
            )

    def close(self) -> None:
        self._writer.close()


def picture(inputs: Tensor, reconstruction: Tensor, target: Tensor) -> Tensor:
    """The first patches of a batch, a row each: [B, C, P, P] in [0, 1] -> uint8 [C, H, W] on the CPU."""
    rows = torch.cat([part[:_PICTURES].float().cpu() for part in (inputs, reconstruction, target)], dim=3)
    return (255 * torch.cat(list(rows), dim=1).clamp(0, 1)).round().to(torch.uint8)
