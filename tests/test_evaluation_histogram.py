"""Score bins and their counts: monotone over all of float32, exact under merging, constant in memory."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from twostage.evaluation.histogram import BINS_PER_OCTAVE, ScoreHistogram, SparseCounts, key_bins, score_keys
from twostage.evaluation.regions import REGION_WEIGHT, region_weights

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def bins_of(*scores: float) -> list[int]:
    return [int(b) for b in key_bins(score_keys(np.array(scores, dtype=np.float32)))]


@given(FINITE, FINITE)
@settings(max_examples=120)
def test_a_higher_score_never_has_a_lower_bin(first: float, second: float) -> None:
    low, high = bins_of(min(first, second), max(first, second))
    assert 0 <= low <= high < 1 << 22


@given(st.floats(min_value=2.0**-120, max_value=2.0**120, width=32), st.sampled_from([-1.0, 1.0]))
@settings(max_examples=120)
def test_scores_that_differ_by_more_than_a_bins_width_never_share_a_bin(score: float, sign: float) -> None:
    far, near = score * (1 + 1.0 / BINS_PER_OCTAVE), score
    assert len(set(bins_of(sign * far, sign * near))) == 2


def test_order_across_the_extremes_of_float32() -> None:
    big = float(np.finfo(np.float32).max)
    ladder = [-big, -1e30, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0, 1.5, 1e30, big]
    bins = bins_of(*ladder)
    assert bins == sorted(set(bins))


def test_negative_zero_is_zero() -> None:
    assert len(set(bins_of(0.0, -0.0))) == 1


def test_every_pixel_is_counted_once_in_its_own_bin() -> None:
    rng = np.random.default_rng(0)
    scores = (rng.normal(size=(40, 50)) * 10.0 ** rng.integers(-8, 8, (40, 50))).astype(np.float32)
    bins = key_bins(score_keys(scores))
    counts = SparseCounts()
    counts.add(bins[:20])
    counts.add(bins[20:])
    expected_bins, expected = np.unique(bins, return_counts=True)
    found = np.concatenate([counts.page(page) for page in range(512)])
    assert np.flatnonzero(found).tolist() == expected_bins.tolist()
    assert found[expected_bins].tolist() == expected.tolist()


def test_memory_does_not_grow_with_images() -> None:
    rng = np.random.default_rng(1)
    histogram, sizes = ScoreHistogram(), []
    for _ in range(20):
        scores = rng.uniform(2.0**-6, 1.0, (32, 32)).astype(np.float32)
        histogram.add(score_keys(scores), rng.random((32, 32)) < 0.3)
        sizes.append(histogram.nbytes)
    assert sizes[-1] == sizes[0] == 3 * 6 * 64 * 1024


def test_memory_is_at_most_what_the_docstring_says() -> None:
    exponents = np.arange(-126, 128, dtype=np.float64)
    scores = np.concatenate([-(2.0**exponents), [0.0, -1e-44], 2.0**exponents]).astype(np.float32)[None]
    histogram = ScoreHistogram()
    histogram.add(score_keys(scores), np.ones(scores.shape, dtype=np.bool_))
    histogram.add(score_keys(scores), None)
    assert histogram.nbytes == 3 * 510 * 64 * 1024 <= 96 * 2**20


def random_mask(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return np.asarray(rng.random(shape) < rng.uniform(0.02, 0.5))


@pytest.mark.parametrize("seed", range(8))
def test_region_weights_are_the_regions_overlap_to_the_stated_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = random_mask(rng, (30, 25))
    bins = rng.integers(0, 12, mask.shape)
    where, weights, regions = region_weights(mask, bins)
    labels, expected_regions = ndimage.label(mask, structure=np.ones((3, 3)))
    assert regions == expected_regions
    assert weights.sum() == regions * REGION_WEIGHT
    for lowest in range(13):
        overlap = sum(float((bins[labels == r] >= lowest).mean()) for r in range(1, regions + 1))
        found = weights[where >= lowest].sum() / REGION_WEIGHT
        assert abs(found - overlap) <= regions / REGION_WEIGHT


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    mask = np.eye(4, dtype=np.bool_)
    assert region_weights(mask, np.zeros((4, 4), dtype=np.int64))[2] == 1


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_sum_of_parts_is_the_whole(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    batch = [
        (
            score_keys((rng.normal(size=(9, 11)) * 10.0 ** rng.integers(-6, 6)).astype(np.float32)),
            random_mask(rng, (9, 11)),
        )
        for _ in range(images)
    ]
    whole, left, right = ScoreHistogram(), ScoreHistogram(), ScoreHistogram()
    for keys, mask in batch:
        whole.add(keys, mask)
    for index in rng.permutation(images):
        (left if rng.random() < 0.5 else right).add(*batch[index])
    parts_before = [left.counts().normal, right.counts().normal]
    total = (right + left).counts()
    expected = whole.counts()
    assert np.array_equal(total.normal, expected.normal)
    assert np.array_equal(total.defective, expected.defective)
    assert np.array_equal(total.region_weight, expected.region_weight)
    assert total.regions == expected.regions
    for part, before in zip((left, right), parts_before, strict=True):
        assert np.array_equal(part.counts().normal, before), "+ changed its operand"
