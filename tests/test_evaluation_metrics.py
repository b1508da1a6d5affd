"""Metrics against scikit-learn and AUPRO's definition, within the bounds that come with them."""

import dataclasses
import itertools
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from evaluation_oracles import TestImage, aupro, evaluator_of, f1_max, pixel_figures
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from twostage.errors import DataError
from twostage.evaluation import Evaluation, Evaluator, Metrics

ROUNDING = 1e-12
"""What float64 sums of a few thousand terms may lose."""
BOUNDS = {
    "average_precision": "average_precision_bound",
    "aupro": "aupro_bound",
    "f1_max": "f1_max_bound",
}
FIGURES = ("pixel_auroc", *BOUNDS)

# Scores of any size; few values, so many ties; many values inside a few bins, where the bins hide the order.
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
TIES = st.sampled_from([-1e30, -1.0, -0.0, 0.0, 1e-40, 0.25, 1.0, 1.0 + 2**-20, 7.0, 3e38])
CROWDED = st.integers(0, 4000).map(lambda step: 1.0 + step * 2.0**-23)
ORDINARY = st.integers(-256, 256).map(lambda step: step / 64)


@st.composite
def image_sets(draw: st.DrawFn, *families: st.SearchStrategy[float]) -> list[TestImage]:
    """Two to five small images with some normal and some defective pixels, one family of scores in all of them."""
    elements = draw(st.sampled_from(families))
    images = []
    for index in range(draw(st.integers(2, 5))):
        shape = (draw(st.integers(1, 6)), draw(st.integers(1, 7)))
        scores = draw(hnp.arrays(np.float32, shape, elements=elements))
        kind = draw(st.sampled_from(["good", "hole", "scratch"]))
        empty = np.zeros(shape, dtype=np.bool_)
        mask = empty if kind == "good" else draw(hnp.arrays(np.bool_, shape))
        images.append(TestImage(scores, mask, kind, float(scores.max()), f"{index}.png"))
    labels = np.concatenate([image.mask.ravel() for image in images])
    assume(labels.any() and not labels.all())
    return images


def realistic(seed: int, images: int = 12, side: int = 40) -> list[TestImage]:
    """Smooth-ish positive scores over three decades, defects somewhat above, kinds good, crack and stain."""
    rng = np.random.default_rng(seed)
    result = []
    for index in range(images):
        kind = ("good", "crack", "stain")[index % 3]
        mask = np.zeros((side, side), dtype=np.bool_)
        if kind != "good":
            for row, column in rng.integers(0, side - 12, (2, 2)):
                mask[row : row + rng.integers(3, 12), column : column + rng.integers(3, 12)] = True
        scores = np.exp(rng.normal(-4, 1, mask.shape) + 1.5 * mask).astype(np.float32)
        result.append(TestImage(scores, mask, kind, float(rng.integers(0, 6)) / 7, f"{kind}{index}.png"))
    return result


def bound_of(found: dict[str, float], name: str) -> float:
    return found[BOUNDS[name]] if name in BOUNDS else 0.0


def as_json(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.to_dict(), allow_nan=False)


@given(image_sets(ANY, TIES, CROWDED, ORDINARY))
@settings(max_examples=120)
def test_pixel_figures_are_within_their_bounds_of_the_unbinned_ones(images: list[TestImage]) -> None:
    found = dataclasses.asdict(evaluator_of(images).result().overall)
    for name, expected in pixel_figures(images).items():
        assert abs(found[name] - expected) <= bound_of(found, name) + ROUNDING, name
        assert 0 <= found[name] <= 1, name


@given(image_sets(CROWDED))
def test_binned_f1_is_never_too_high(images: list[TestImage]) -> None:
    assert evaluator_of(images).result().overall.f1_max <= pixel_figures(images)["f1_max"] + ROUNDING


@pytest.mark.parametrize("seed", range(3))
def test_realistic_scores_are_told_apart_to_four_digits(seed: int) -> None:
    images = realistic(seed)
    found = dataclasses.asdict(evaluator_of(images).result().overall)
    for name, expected in pixel_figures(images).items():
        assert bound_of(found, name) < 1e-3
        # F1 moves in steps of about one in the number of defective pixels: two of these.
        steps = 2 / sum(int(image.mask.sum()) for image in images) if name == "f1_max" else 0
        assert found[name] == pytest.approx(expected, abs=2e-5 + steps)


@given(image_sets(ORDINARY))
def test_distinct_bins_give_the_exact_figures(images: list[TestImage]) -> None:
    # Multiples of 1/64 up to 4 never share a bin, so that nothing is hidden, though the bounds cannot know it.
    found = dataclasses.asdict(evaluator_of(images).result().overall)
    for name, expected in pixel_figures(images).items():
        assert found[name] == pytest.approx(expected, abs=1e-9), name


@given(
    st.lists(st.floats(-2, 2) | st.sampled_from([0.0, 0.5]), min_size=1, max_size=12),
    st.lists(st.floats(-2, 2) | st.sampled_from([0.0, 0.5]), min_size=1, max_size=12),
)
def test_image_figures_are_exact(good: list[float], bad: list[float]) -> None:
    evaluator = Evaluator()
    pixel = np.zeros((1, 1), dtype=np.float32)
    for score in good:
        evaluator.add(pixel, None, score, "good")
    for score in bad:
        evaluator.add(pixel, np.ones((1, 1), dtype=np.bool_), score, "hole")
    found = evaluator.result().overall
    labels, scores = np.array([False] * len(good) + [True] * len(bad)), np.array(good + bad)
    assert found.image_auroc == pytest.approx(roc_auc_score(labels, scores), abs=ROUNDING)
    assert found.image_average_precision == pytest.approx(average_precision_score(labels, scores), abs=ROUNDING)
    assert found.image_f1_max == pytest.approx(f1_max(labels, scores), abs=ROUNDING)


def test_image_scores_keep_their_float64_digits() -> None:
    evaluator = Evaluator()
    pixel = np.zeros((1, 1), dtype=np.float32)
    evaluator.add(pixel, None, 0.5, "good")
    evaluator.add(pixel, np.ones((1, 1), dtype=np.bool_), 0.5 + 1e-15, "hole")
    assert evaluator.result().overall.image_auroc == 1.0


def test_aupro_of_a_case_worked_by_hand() -> None:
    # Two regions, of 1 and of 4 pixels; 10 normal pixels. Thresholds: 9 finds the small region, 8 one normal pixel,
    # 7 half of the large region, 6 one normal pixel, 5 its rest and two normal pixels, 1 everything.
    scores = np.array([[9, 1, 1, 7, 7], [8, 1, 6, 5, 5], [5, 5, 1, 1, 1]], dtype=np.float32)
    mask = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]], dtype=np.bool_)
    # (0, 1/2), (0.1, 1/2), (0.1, 3/4), (0.2, 3/4), (0.4, 1), cut at (0.3, 7/8)
    expected = (0.1 * 0.5 + 0.1 * 0.75 + 0.1 * (0.75 + 0.875) / 2) / 0.3
    found = evaluator_of([TestImage(scores, mask, "hole", 1.0, "a")]).result().overall
    assert found.aupro == pytest.approx(expected, abs=1e-9)
    assert aupro([scores], [mask]) == pytest.approx(expected, abs=1e-12)


def test_aupro_weighs_a_small_region_like_a_large_one() -> None:
    mask = np.zeros((8, 8), dtype=np.bool_)
    mask[0, 0] = True
    mask[3:, 3:] = True
    only_small, only_large = np.zeros((2, 8, 8), dtype=np.float32)
    only_small[0, 0] = 1
    only_large[3:, 3:] = 1
    figures = [evaluator_of([TestImage(s, mask, "hole", 1, "a")]).result().overall for s in (only_small, only_large)]
    assert figures[0].aupro == pytest.approx(figures[1].aupro, abs=1e-9)
    assert figures[0].pixel_auroc < figures[1].pixel_auroc


@given(image_sets(ANY, TIES, CROWDED), st.randoms(use_true_random=False))
def test_merged_parts_give_the_same_bits_in_any_order(images: list[TestImage], random: Any) -> None:
    parts: list[list[TestImage]] = [[], [], []]
    for image in random.sample(images, len(images)):
        random.choice(parts).append(image)
    merged = Evaluator()
    for part in parts:
        merged.merge(evaluator_of(part))
    assert as_json(merged.result()) == as_json(evaluator_of(images).result())


@given(image_sets(ANY.filter(lambda x: x == 0 or 1e-20 < abs(x) < 1e20)), st.integers(-40, 40))
def test_scaling_by_a_power_of_two_changes_no_bit(images: list[TestImage], exponent: int) -> None:
    scaled = [dataclasses.replace(image, scores=image.scores * np.float32(2.0**exponent)) for image in images]
    assert as_json(evaluator_of(scaled).result()) == as_json(evaluator_of(images).result())


TRANSFORMS: dict[str, Any] = {
    "exp": np.exp,
    "cube": lambda x: x**3,
    "shifted": lambda x: 0.001 * x - 5,
    "above one": lambda x: 1000 + x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@given(images=image_sets(ORDINARY))
def test_a_strictly_rising_transform_changes_nothing_beyond_the_bounds(name: str, images: list[TestImage]) -> None:
    def moved_scores(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(TRANSFORMS[name](scores.astype(np.float64)), dtype=np.float32)

    moved = [dataclasses.replace(image, scores=moved_scores(image.scores)) for image in images]
    before = dataclasses.asdict(evaluator_of(images).result().overall)
    after = dataclasses.asdict(evaluator_of(moved).result().overall)
    for figure in FIGURES:
        bound = bound_of(before, figure) + bound_of(after, figure)
        assert abs(before[figure] - after[figure]) <= bound + ROUNDING, figure


@pytest.mark.parametrize("constant", [0.0, -3.0, 1e-45, 3e38])
def test_a_constant_map_is_chance(constant: float) -> None:
    images = [dataclasses.replace(i, scores=np.full_like(i.scores, constant)) for i in realistic(0)]
    found = evaluator_of(images).result().overall
    assert found.pixel_auroc == 0.5
    assert found.aupro == pytest.approx(0.15, abs=1e-9)


def test_perfect_and_inverted_maps() -> None:
    images = [dataclasses.replace(i, scores=i.mask.astype(np.float32)) for i in realistic(0)]
    perfect = evaluator_of(images).result().overall
    assert (perfect.pixel_auroc, perfect.average_precision, perfect.aupro, perfect.f1_max) == (1, 1, 1, 1)
    assert perfect.average_precision_bound == perfect.f1_max_bound == 0
    inverted = evaluator_of([dataclasses.replace(i, scores=-i.scores) for i in images]).result().overall
    assert (inverted.pixel_auroc, inverted.aupro) == (0, 0)


@pytest.mark.parametrize("kind", ["crack", "stain"])
def test_each_kind_is_measured_against_all_good_images(kind: str) -> None:
    images = realistic(3)
    alone = [image for image in images if image.kind in ("good", kind)]
    result = evaluator_of(images).result()
    assert list(result.by_kind) == ["crack", "stain"]
    assert result.by_kind[kind] == evaluator_of(alone).result().overall
    assert result.by_kind[kind].pixel_auroc == pytest.approx(pixel_figures(alone)["pixel_auroc"], abs=1e-4)


def undefined(metrics: Metrics, *, pixel: bool, image: bool) -> bool:
    names = ["image_auroc", "image_average_precision", "image_f1_max"] if image else []
    names += [*FIGURES, *BOUNDS.values()] if pixel else []
    values = dataclasses.asdict(metrics)
    return all(math.isnan(values[name]) == (name in names) for name in values)


def test_only_good_images_leave_every_figure_undefined() -> None:
    result = evaluator_of([i for i in realistic(0) if i.kind == "good"]).result()
    assert undefined(result.overall, pixel=True, image=True)
    assert result.by_kind == {}
    assert result.pixel_roc.false_positive_rate == result.image_roc.true_positive_rate == ()


def test_no_images_leave_every_figure_undefined() -> None:
    result = Evaluator().result()
    assert undefined(result.overall, pixel=True, image=True)
    assert json.loads(as_json(result))["overall"]["aupro"] is None


def test_no_good_image_leaves_image_figures_undefined() -> None:
    result = evaluator_of([i for i in realistic(0) if i.kind == "crack"]).result()
    assert undefined(result.overall, pixel=False, image=True)
    assert undefined(result.by_kind["crack"], pixel=False, image=True)


def test_no_normal_pixel_leaves_pixel_figures_undefined() -> None:
    evaluator = Evaluator()
    evaluator.add(np.ones((2, 2), dtype=np.float32), np.ones((2, 2), dtype=np.bool_), 1.0, "hole")
    assert undefined(evaluator.result().overall, pixel=True, image=True)


def test_defective_image_without_mask_is_in_the_image_figures_only() -> None:
    images = realistic(0)
    expected = evaluator_of(images).result()
    evaluator = evaluator_of(images)
    evaluator.add(np.full((4, 4), 9, dtype=np.float32), None, 0.9, "crack", name="unmasked")
    evaluator.add(np.full((4, 4), 9, dtype=np.float32), None, 0.9, "dent", name="unmasked kind")
    result = evaluator.result()
    assert result.images_without_mask == 2
    assert result.overall.pixel_auroc == expected.overall.pixel_auroc
    assert result.overall.image_auroc > expected.overall.image_auroc
    assert undefined(result.by_kind["dent"], pixel=True, image=False)
    other = Evaluator()
    other.merge(evaluator)
    assert other.result().images_without_mask == 2


def test_defective_image_with_an_empty_mask_counts_as_normal_pixels() -> None:
    images = realistic(0)
    extra = np.full((4, 4), 9, dtype=np.float32)
    empty = np.zeros((4, 4), dtype=np.bool_)
    as_defective = evaluator_of([*images, TestImage(extra, empty, "crack", 1, "x")]).result().overall
    as_good = evaluator_of([*images, TestImage(extra, empty, "good", 1, "x")]).result().overall
    assert as_defective.pixel_auroc == as_good.pixel_auroc < evaluator_of(images).result().overall.pixel_auroc
    assert as_defective.image_auroc > as_good.image_auroc


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_are_read_as_float32(dtype: torch.dtype) -> None:
    tensors, arrays = Evaluator(), Evaluator()
    for image in realistic(1):
        scores = torch.from_numpy(image.scores).to(dtype).requires_grad_()
        tensors.add(
            scores, torch.from_numpy(image.mask), torch.tensor(image.score).double(), image.kind, name=image.name
        )
        image_score = float(np.float32(image.score))
        arrays.add(scores.detach().float().numpy(), image.mask, image_score, image.kind, name=image.name)
    assert as_json(tensors.result()) == as_json(arrays.result())


def test_maps_may_be_strided() -> None:
    scores = np.exp(np.random.default_rng(0).normal(size=(20, 30))).astype(np.float32)
    mask = scores.T > 2
    strided, plain = Evaluator(), Evaluator()
    strided.add(scores.T, mask, 1.0, "hole")
    plain.add(np.ascontiguousarray(scores.T), np.ascontiguousarray(mask), 1.0, "hole")
    assert as_json(strided.result()) == as_json(plain.result())


GOOD_MAP = np.zeros((3, 4), dtype=np.float32)


def with_value(value: float) -> npt.NDArray[np.float64]:
    scores = GOOD_MAP.astype(np.float64)
    scores[1, 2] = value
    return scores


@pytest.mark.parametrize(
    ("scores", "mask", "score", "kind", "said"),
    [
        (with_value(np.nan), None, 1.0, "good", "1 of 12 scores .* row 1, column 2"),
        (with_value(-np.inf), None, 1.0, "good", "1 of 12 scores"),
        (with_value(1e39), None, 1.0, "good", "not finite in float32"),
        (GOOD_MAP, None, math.nan, "good", "image score is nan"),
        (GOOD_MAP, None, -math.inf, "good", "image score is -inf"),
        (GOOD_MAP[None], None, 1.0, "good", r"\(1, 3, 4\); accepted: \[H, W\]"),
        (GOOD_MAP[:0], None, 1.0, "good", r"\(0, 4\); accepted: \[H, W\]"),
        (np.broadcast_to(np.float32(0), (2**16, 2**15)), None, 1.0, "good", r"2\*\*31 - 1 pixels"),
        (GOOD_MAP, np.zeros((4, 3), dtype=np.bool_), 1.0, "hole", r"\(4, 3\) but the score map is \(3, 4\)"),
        (GOOD_MAP, np.zeros((3, 4), dtype=np.uint8), 1.0, "hole", "type uint8; accepted: bool"),
        (GOOD_MAP, np.eye(3, 4, dtype=np.bool_), 1.0, "good", "marks 3 defective pixels"),
    ],
)
def test_refused_input_names_the_image_and_changes_nothing(
    scores: npt.NDArray[np.floating], mask: npt.NDArray[Any] | None, score: float, kind: str, said: str
) -> None:
    evaluator = evaluator_of(realistic(0))
    before = as_json(evaluator.result())
    with pytest.raises(DataError, match=f"test/hole/007.png: .*{said}"):
        evaluator.add(scores, mask, score, kind, name="test/hole/007.png")
    assert as_json(evaluator.result()) == before


def test_all_problems_of_an_image_are_named_at_once() -> None:
    with pytest.raises(
        DataError, match=r"hole image 0: .*not finite.*; the image score is nan.*; the mask is \(2, 2\)"
    ):
        Evaluator().add(with_value(np.nan), np.ones((2, 2), dtype=np.bool_), math.nan, "hole")


def test_thinned_roc_curves_follow_the_whole_curve() -> None:
    images = realistic(5)
    result = evaluator_of(images).result()
    false, true = (np.array(axis) for axis in dataclasses.astuple(result.pixel_roc))
    assert 400 < len(false) == len(true) <= 500
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    # A chord of length d in rates hides at most d**2 / 8; there are 499 of about 2 / 499 each, at most twice that.
    assert auc(false, true) == pytest.approx(result.overall.pixel_auroc, abs=499 * (4 / 499) ** 2 / 8)
    false, true = (np.array(axis) for axis in dataclasses.astuple(result.image_roc))
    assert len(false) == 1 + len({image.score for image in images})
    assert auc(false, true) == pytest.approx(result.overall.image_auroc, abs=ROUNDING)


def test_json_holds_the_figures_and_the_image_scores() -> None:
    images = realistic(2)
    result = evaluator_of(images).result()
    read = json.loads(as_json(result))
    assert read["overall"] == dataclasses.asdict(result.overall)
    assert read["by_kind"]["stain"]["aupro"] == result.by_kind["stain"].aupro
    assert [(i["kind"], i["name"]) for i in read["images"]] == sorted((i.kind, i.name) for i in images)
    assert {i["name"]: i["score"] for i in read["images"]} == {i.name: i.score for i in images}
    assert read["pixel_roc"]["true_positive_rate"][-1] == 1


def test_images_can_be_added_after_a_result() -> None:
    images = realistic(4)
    evaluator = evaluator_of(images[:6])
    evaluator.result()
    for image in itertools.islice(images, 6, None):
        evaluator.add(image.scores, image.mask, image.score, image.kind, name=image.name)
    assert as_json(evaluator.result()) == as_json(evaluator_of(images).result())
