"""The threshold from normal scores: one of them, low enough and no lower."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twostage.errors import ConfigError, DataError
from twostage.evaluation import threshold_from_normals


@given(
    st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=60),
    st.floats(0, 1, exclude_min=True) | st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.99, 1.0]),
)
@settings(max_examples=120)
def test_it_is_the_smallest_score_that_covers_the_quantile(scores: list[float], quantile: float) -> None:
    threshold = threshold_from_normals(torch.tensor(scores, dtype=torch.float64), quantile)
    covering = [s for s in scores if sum(other <= s for other in scores) / len(scores) >= quantile]
    assert threshold == min(covering)


def test_a_share_that_is_met_exactly_takes_no_score_more() -> None:
    # 0.07 * 100 is 7.000000000000001 in float64: rounding that up would take the eighth score.
    percents = range(1, 101)
    assert [threshold_from_normals(torch.arange(1, 101), p / 100) for p in percents] == list(percents)


def test_numpy_finds_the_same_by_its_inverted_distribution() -> None:
    scores = np.random.default_rng(0).normal(size=257)
    scores.flags.writeable = False
    for quantile in (0.013, 0.5, 0.777, 0.99, 0.999, 1.0):
        expected = np.quantile(scores, quantile, method="inverted_cdf")
        assert threshold_from_normals(scores, quantile) == expected


def test_a_float32_score_comes_back_exactly() -> None:
    scores = torch.tensor([[0.1, 0.2], [0.3, 0.7]], requires_grad=True)
    assert threshold_from_normals(scores, 0.75) == float(np.float32(0.3))


@pytest.mark.parametrize("quantile", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_quantile_outside_its_range(quantile: float) -> None:
    with pytest.raises(ConfigError, match=f"quantile is {quantile!r}; accepted: above 0, at most 1"):
        threshold_from_normals(torch.ones(3), quantile)


def test_no_scores() -> None:
    with pytest.raises(DataError, match="there are no scores of normal images"):
        threshold_from_normals(torch.empty(0), 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite(bad: float) -> None:
    with pytest.raises(DataError, match="1 of 3 scores of normal images are not finite"):
        threshold_from_normals(torch.tensor([0.0, bad, 1.0]), 0.5)
