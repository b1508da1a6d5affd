"""The losses of Table 2 against their terms by hand, and the sigma schedule of Eq. 9."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from twostage.config import LossConfig, LossName
from twostage.errors import ConfigError
from twostage.losses import CLASSIC_SIGMA, ReconstructionLoss, sigma_at
from twostage_kernels import aw_ssim, ssim

SIGMA = torch.tensor(0.9)
WEIGHTS = (0.1, 0.2, 0.7)


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 24, 24, generator=generator), torch.rand(2, 3, 24, 24, generator=generator)


def squared_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Stands in for LPIPS. Not symmetric, so that swapped arguments would show."""
    return (prediction.square() - target).mean()


def by_hand(name: LossName, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    similar = {
        "aw_ssim": 1 - aw_ssim(prediction, target, sigma=0.9, weights=WEIGHTS, window_size=7),
        "ssim": 1 - ssim(prediction, target, sigma=CLASSIC_SIGMA, window_size=7),
        "l1": (prediction - target).abs().mean(),
        "lpips": squared_distance(prediction, target),
    }
    terms = {
        "ssim": ("ssim",),
        "ssim+l1": ("ssim", "l1"),
        "lpips+ssim": ("ssim", "lpips"),
        "aw-ssim": ("aw_ssim",),
        "aw-ssim+lpips": ("aw_ssim", "lpips"),
    }
    return {term: similar[term] for term in terms[name]}


@pytest.mark.parametrize("name", ["ssim", "ssim+l1", "lpips+ssim", "aw-ssim", "aw-ssim+lpips"])
def test_every_loss_is_the_weighed_sum_of_its_terms(name: LossName) -> None:
    prediction, target = pair()
    config = LossConfig(name, weights=WEIGHTS, similarity_share=0.6, window_size=7)
    loss = ReconstructionLoss(config, squared_distance)(prediction.requires_grad_(), target, SIGMA)
    terms = by_hand(name, prediction, target)
    assert loss.terms.keys() == terms.keys()
    for term, value in terms.items():
        torch.testing.assert_close(loss.terms[term], value.detach())
    shares = (1.0,) if len(terms) == 1 else (0.6, 0.4)
    total = sum(share * value for share, value in zip(shares, terms.values(), strict=True))
    assert isinstance(total, Tensor)
    torch.testing.assert_close(loss.total, total)
    (gradient,) = torch.autograd.grad(loss.total, prediction)
    (accepted,) = torch.autograd.grad(total, prediction)
    torch.testing.assert_close(gradient, accepted)


@pytest.mark.parametrize("name", ["ssim", "ssim+l1", "aw-ssim"])
def test_equal_images_cost_nothing(name: LossName) -> None:
    image, _ = pair()
    assert abs(float(ReconstructionLoss(LossConfig(name))(image, image.clone(), SIGMA).total)) < 1e-6


@given(st.tuples(*[st.floats(0, 1e6)] * 3).filter(lambda weights: sum(weights) > 1e-3), st.floats(1e-3, 1e3))
def test_weights_count_by_their_ratio(weights: tuple[float, float, float], factor: float) -> None:
    alpha, beta, gamma = weights
    scaled = ReconstructionLoss(LossConfig(weights=(alpha * factor, beta * factor, gamma * factor))).weights
    assert sum(scaled) == pytest.approx(1)
    assert scaled == pytest.approx(ReconstructionLoss(LossConfig(weights=weights)).weights)


@pytest.mark.parametrize("name", ["lpips+ssim", "aw-ssim+lpips"])
def test_a_loss_with_lpips_refuses_to_go_without(name: LossName) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"loss.name is '{name}', which needs LPIPS")):
        ReconstructionLoss(LossConfig(name))


def test_classic_ssim_has_one_sigma() -> None:
    prediction, target = pair()
    loss = ReconstructionLoss(LossConfig("ssim"))
    assert loss(prediction, target, SIGMA).total == loss(prediction, target, 2 * SIGMA).total


def test_aw_ssim_follows_sigma() -> None:
    prediction, target = pair()
    loss = ReconstructionLoss(LossConfig("aw-ssim"))
    assert loss(prediction, target, SIGMA).total != loss(prediction, target, 2 * SIGMA).total


@given(st.integers(2, 10_000), st.floats(0.1, 5), st.floats(0.1, 5))
def test_sigma_goes_from_its_first_to_its_last_value_in_equal_steps(steps: int, first: float, last: float) -> None:
    config = LossConfig(sigma=(first, last))
    assert sigma_at(config, 0, steps) == first
    assert sigma_at(config, steps - 1, steps) == pytest.approx(last)
    assert sigma_at(config, 1, steps) - first == pytest.approx((last - first) / (steps - 1), abs=1e-12)


def test_an_epoch_of_one_step_has_the_first_sigma() -> None:
    assert sigma_at(LossConfig(sigma=(0.5, 2.5)), 0, 1) == 0.5


def test_a_given_growth_replaces_the_last_value() -> None:
    config = LossConfig(sigma=(0.5, 2.5), sigma_step=0.25)
    assert [sigma_at(config, step, 4) for step in range(4)] == [0.5, 0.75, 1.0, 1.25]
