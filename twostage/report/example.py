"""One test image with everything the detector made of it, and the verdict."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from twostage.errors import DataError
from twostage.evaluation import GOOD


class Verdict(Enum):
    """Whether the decision at the threshold was right."""

    FOUND = "found"
    PASSED = "passed"
    MISSED = "missed"
    FALSE_ALARM = "false alarm"

    @classmethod
    def of(cls, kind: str, score: float, threshold: float) -> "Verdict":
        """A score above the threshold says defective."""
        if kind == GOOD:
            return cls.FALSE_ALARM if score > threshold else cls.PASSED
        return cls.FOUND if score > threshold else cls.MISSED

    @property
    def correct(self) -> bool:
        return self in (Verdict.FOUND, Verdict.PASSED)


@dataclass(frozen=True)
class Example:
    """A test image for the report. All pictures have the same height and width.

    Raises:
        DataError: shapes or types do not fit, or the image score is not finite; the message lists everything.
    """

    name: str
    kind: str
    """``good``, or the kind of defect."""
    image: Tensor  # [C, H, W] in [0, 1], C of 1 or 3
    reconstruction: Tensor  # [C, H, W] in [0, 1]
    residual: Tensor  # [H, W], absolute differences
    score_map: Tensor  # [H, W], higher is more anomalous
    mask: Tensor | None  # bool [H, W]; None where unknown
    score: float
    """Of the whole image."""

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise DataError(f"{self.name}: {'; '.join(problems)}")

    def _problems(self) -> list[str]:
        shape = tuple(self.image.shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or self.image.numel() == 0:
            return [f"image has shape {shape}; accepted: [1, H, W] or [3, H, W]"]
        found = []
        if tuple(self.reconstruction.shape) != shape:
            found.append(f"reconstruction has shape {tuple(self.reconstruction.shape)}; accepted: the image's, {shape}")
        for name, values in (("residual", self.residual), ("score_map", self.score_map), ("mask", self.mask)):
            if values is not None and tuple(values.shape) != shape[1:]:
                found.append(f"{name} has shape {tuple(values.shape)}; accepted: the image's, {shape[1:]}")
        if self.mask is not None and self.mask.dtype != torch.bool:
            found.append(f"mask is of type {self.mask.dtype}; accepted: torch.bool")
        if not torch.isfinite(torch.tensor(self.score)):
            found.append(f"score is {self.score}; accepted: a finite number")
        return found
