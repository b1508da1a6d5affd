"""What a similarity op takes beside the two images, and what a backend offers for it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Settings(NamedTuple):
    """Checked arguments. Their order is that of the operators' schema."""

    sigma: Tensor  # [B] pixels, in the precision of the sums
    mask: Tensor | None  # [B, 1, H, W] of at least 0, in the precision of the sums
    weights: Sequence[float] | None  # alpha, beta, gamma of the additive form; None: the product form
    luminance: bool  # whether the product form has its first factor
    window_size: int
    data_range: float
    k1: float
    k2: float
    padding: str  # "valid" or "same"
    l1_weight: float  # share of the mean absolute difference, in units of data_range, in a "loss"

    @property
    def highest(self) -> float:
        """What equal images score."""
        return 1.0 if self.weights is None else float(sum(self.weights))


class Similarity(Protocol):
    """A backend's entry, for callers who have checked their arguments.

    ``reduction`` is "mean", "sample", "none" (the map) or "loss":
    (1 - l1_weight) * (1 - mean) + l1_weight * mean |prediction - target| / data_range.
    """

    def __call__(self, prediction: Tensor, target: Tensor, settings: Settings, reduction: str) -> Tensor: ...
