"""The losses of Table 2 as one callable, and the sigma schedule of Eq. 9."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.config import LossConfig
from twostage.errors import ConfigError
from twostage_kernels import aw_ssim_loss, ssim_loss

# Where AW-SSIM is not in play the window is the classic one.
CLASSIC_SIGMA = 1.5


class PerceptualDistance(Protocol):
    """What the loss needs of LPIPS."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class LossParts:
    """A loss and the terms it was weighed from."""

    total: Tensor
    terms: dict[str, Tensor]


class ReconstructionLoss:
    """1 - similarity, alone or mixed with L1 or LPIPS as in Eq. 10.

    Args:
        config: which loss, its weights.
        lpips: the perceptual distance; needed by the losses that name it.

    Raises:
        ConfigError: the loss needs LPIPS and none is given.
    """

    def __init__(self, config: LossConfig, lpips: PerceptualDistance | None = None) -> None:
        if config.uses_lpips and lpips is None:
            raise ConfigError(f"loss.name is {config.name!r}, which needs LPIPS weights; none were given")
        self.config = config
        self.lpips = lpips
        total = sum(config.weights)
        alpha, beta, gamma = (weight / total for weight in config.weights)
        self.weights = (alpha, beta, gamma)

    def __call__(self, prediction: Tensor, target: Tensor, sigma: Tensor) -> LossParts:
        """Loss of reconstructions against normal patches, both [B, C, P, P] in [0, 1], at ``sigma`` pixels (0-d)."""
        config = self.config
        window = config.window_size
        if config.name.startswith("aw-ssim"):
            terms = {"aw_ssim": aw_ssim_loss(prediction, target, sigma=sigma, weights=self.weights, window_size=window)}
        else:
            terms = {"ssim": ssim_loss(prediction, target, sigma=CLASSIC_SIGMA, window_size=window)}
        if config.name == "ssim+l1":
            terms["l1"] = F.l1_loss(prediction, target)
        elif config.uses_lpips and self.lpips is not None:
            terms["lpips"] = self.lpips(prediction, target)
        similarity, *others = terms.values()
        share = config.similarity_share
        total = share * similarity + (1 - share) * others[0] if others else similarity
        return LossParts(total, {name: term.detach() for name, term in terms.items()})


def sigma_at(config: LossConfig, step: int, steps_in_epoch: int) -> float:
    """Standard deviation of the window at a step of an epoch, in pixels (Eq. 9).

    It starts at its first value in every epoch and grows by the same amount with every step.
    """
    first, last = config.sigma
    growth = config.sigma_step
    if growth is None:
        growth = (last - first) / max(steps_in_epoch - 1, 1)
    return first + step * growth
