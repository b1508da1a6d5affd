"""What is settled on held-out normal images: score map, smoothing, threshold."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lpips_oracles import random_weights
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional
from training_fixtures import PATCH, noise_image

from twostage.calibration import Calibration, Candidate, calibrate, synthetic_defects
from twostage.config import DefectConfig, MapName, ScoringConfig
from twostage.data.packing import to_unit_range
from twostage.defects import DefectSampler, SourcePool
from twostage.evaluation import threshold_from_normals
from twostage.features import feature_pair, fit_gaussian
from twostage.kept_maps import KeptMaps
from twostage.lpips import LPIPS
from twostage.scoring import SMOOTHINGS, Spread, base_maps, image_score, score_map

DEFECTS = DefectConfig(probability=1.0, max_defects=1, size=(0.2, 0.5), strength=(1, 1), brightness=0.5)
FIXED = ScoringConfig(map="residual", lpips=False, smoothing=2.0, quantile=0.75)
OPEN = ScoringConfig(map="auto", lpips=False, smoothing=None, quantile=0.75)


def smooth_image(seed: int, height: int = 66, width: int = 70) -> Tensor:
    coarse = noise_image(seed, 8, 8)[None].float()
    return functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].clamp(0, 255).byte()


NORMAL = [smooth_image(seed) for seed in range(5)]


def rebuild(image: Tensor) -> Tensor:
    """Cannot make what is fine."""
    return functional.avg_pool2d(image.unsqueeze(0), 5, stride=1, padding=2, count_include_pad=False)[0]


def make_sampler(config: DefectConfig = DEFECTS, seed: int = 0) -> DefectSampler:
    pool = SourcePool(NORMAL, [noise_image(seed, 80, 80) for seed in range(20, 24)], 4)
    return DefectSampler(config, pool, PATCH, seed)


def normal_scores(calibration: Calibration, config: ScoringConfig) -> Tensor:
    scores = []
    for image in map(to_unit_range, NORMAL):
        maps = base_maps(image, rebuild(image), None, None)
        chosen = score_map(maps, calibration.map, calibration.smoothing, calibration.spreads)
        scores.append(image_score(chosen, config.image_fraction))
    return torch.tensor(scores, dtype=torch.float64)


# ---------------------------------------------------------------- synthetic defects


def test_synthetic_defects_are_normal_images_but_for_what_the_mask_shows() -> None:
    pairs = synthetic_defects(NORMAL, make_sampler(), count=12)
    assert 8 < len(pairs) <= 12  # a defect may lie outside the patch
    for image, mask in pairs:
        assert image.min() >= 0
        assert image.max() <= 1
        visible = [(image - to_unit_range(normal)).abs().mean(dim=0) > 0.02 for normal in NORMAL]
        assert sum(torch.equal(mask, difference) for difference in visible) == 1
        assert mask.any()
        rows, columns = mask.nonzero(as_tuple=True)
        assert rows.max() - rows.min() < PATCH
        assert columns.max() - columns.min() < PATCH


def test_synthetic_defects_come_again_and_lie_elsewhere_each_time() -> None:
    first, again = (synthetic_defects(NORMAL, make_sampler(), count=10) for _ in range(2))
    for (image, mask), (other, other_mask) in zip(first, again, strict=True):
        assert torch.equal(image, other)
        assert torch.equal(mask, other_mask)
    assert len({tuple(mask.nonzero()[0].tolist()) for _, mask in first}) == len(first) > 6


def test_what_cannot_be_seen_is_left_out() -> None:
    assert synthetic_defects(NORMAL, make_sampler(replace(DEFECTS, strength=(0, 0))), count=4) == []


# ---------------------------------------------------------------- the threshold


def test_the_threshold_is_a_quantile_of_normal_scores_alone() -> None:
    untouchable = cast("Callable[[], DefectSampler]", None)
    calibration = calibrate(rebuild, None, [], NORMAL, untouchable, FIXED)
    assert (calibration.map, calibration.smoothing, calibration.candidates) == ("residual", 2.0, ())
    scores = normal_scores(calibration, FIXED)
    assert calibration.threshold == threshold_from_normals(scores, 0.75)
    assert calibration.threshold == scores.sort().values[3]


@pytest.fixture(scope="module")
def chosen() -> tuple[Calibration, list[tuple[int, int]]]:
    """A calibration that chose map and smoothing, and its progress."""
    seen: list[tuple[int, int]] = []
    calibration = calibrate(
        rebuild, None, [], NORMAL, make_sampler, OPEN, lambda done, total: seen.append((done, total))
    )
    return calibration, seen


def test_the_threshold_of_a_chosen_map_is_one_of_normal_scores_too(
    chosen: tuple[Calibration, list[tuple[int, int]]],
) -> None:
    calibration, _ = chosen
    assert calibration.threshold == normal_scores(calibration, OPEN).sort().values[3]


def test_spreads_are_those_of_all_normal_pixels() -> None:
    calibration = calibrate(rebuild, None, [], NORMAL, make_sampler, FIXED)
    residuals = np.concatenate(
        [(to_unit_range(image) - rebuild(to_unit_range(image))).abs().mean(dim=0).numpy().ravel() for image in NORMAL]
    )
    assert calibration.spreads.keys() == {"residual", "ssim"}
    assert calibration.spreads["residual"].mean == pytest.approx(residuals.mean(), rel=1e-5)
    assert calibration.spreads["residual"].deviation == pytest.approx(residuals.std(ddof=1), rel=1e-5)


def test_maps_that_memory_does_not_hold_calibrate_alike(
    chosen: tuple[Calibration, list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[KeptMaps] = []

    def keep_one_image() -> KeptMaps:
        kept.append(KeptMaps(in_memory=2 * 4 * NORMAL[0][0].numel()))
        return kept[-1]

    monkeypatch.setattr("twostage.calibration.KeptMaps", keep_one_image)
    assert calibrate(rebuild, None, [], NORMAL, make_sampler, OPEN) == chosen[0]
    assert [len(maps) for maps in kept] == [len(NORMAL), len(synthetic_defects(NORMAL, make_sampler()))]


# ---------------------------------------------------------------- the choice


def auroc(map_name: str, smoothing: float, spreads: dict[str, Spread], config: ScoringConfig) -> tuple[float, float]:
    """Of pixels and of images, by scikit-learn."""
    pairs: list[tuple[Tensor, Tensor]] = [
        (to_unit_range(image), torch.zeros(image.shape[1:], dtype=torch.bool)) for image in NORMAL
    ]
    pairs += synthetic_defects(NORMAL, make_sampler())
    scores, masks = [], []
    for image, mask in pairs:
        scores.append(score_map(base_maps(image, rebuild(image), None, None), map_name, smoothing, spreads))
        masks.append(mask)
    pixels = roc_auc_score(flat(masks), flat(scores))
    images = roc_auc_score(
        [bool(mask.any()) for mask in masks], [image_score(score, config.image_fraction) for score in scores]
    )
    return float(pixels), float(images)


def flat(values: Sequence[Tensor]) -> Any:
    return torch.cat([value.flatten() for value in values]).numpy()


def test_the_best_of_all_ways_on_synthetic_defects_is_chosen(
    chosen: tuple[Calibration, list[tuple[int, int]]],
) -> None:
    calibration, _ = chosen
    ways = {(candidate.map, candidate.smoothing) for candidate in calibration.candidates}
    assert ways == set(itertools.product(("residual", "ssim", "combined"), SMOOTHINGS))
    sums = [candidate.pixel_auroc + candidate.image_auroc for candidate in calibration.candidates]
    assert sums == sorted(sums, reverse=True)
    assert sums[0] > sums[-1]
    assert (calibration.map, calibration.smoothing) == (
        calibration.candidates[0].map,
        calibration.candidates[0].smoothing,
    )
    for candidate in (calibration.candidates[0], calibration.candidates[-1]):
        pixels, images = auroc(candidate.map, candidate.smoothing, calibration.spreads, OPEN)
        assert candidate.pixel_auroc == pytest.approx(pixels, abs=1e-3)
        assert candidate.image_auroc == pytest.approx(images, abs=1e-9)


@pytest.mark.parametrize(
    ("config", "ways"),
    [
        (replace(OPEN, map="ssim"), {("ssim", smoothing) for smoothing in SMOOTHINGS}),
        (replace(OPEN, smoothing=3.0), {(name, 3.0) for name in ("residual", "ssim", "combined")}),
    ],
)
def test_what_is_given_is_not_chosen(config: ScoringConfig, ways: set[tuple[str, float]]) -> None:
    calibration = calibrate(rebuild, None, [], NORMAL, make_sampler, config)
    assert {(candidate.map, candidate.smoothing) for candidate in calibration.candidates} == ways
    assert (calibration.map, calibration.smoothing) in ways


def test_without_a_visible_defect_the_combined_map_is_taken() -> None:
    calibration = calibrate(rebuild, None, [], NORMAL, lambda: make_sampler(replace(DEFECTS, strength=(0, 0))), OPEN)
    assert calibration.map == "combined"
    assert calibration.candidates == ()


def test_progress_counts_every_image(chosen: tuple[Calibration, list[tuple[int, int]]]) -> None:
    _, seen = chosen
    total = 5 + len(synthetic_defects(NORMAL, make_sampler()))
    assert seen == [(done, total) for done in range(1, total + 1)]


# ---------------------------------------------------------------- with LPIPS


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    return LPIPS(random_weights())


TRAINED = [smooth_image(seed) for seed in range(30, 37)]


def test_normal_features_are_those_of_evenly_spread_training_images(
    lpips: LPIPS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twostage.calibration._FEATURE_IMAGES", 3)
    config = ScoringConfig(map="features", smoothing=0.0)
    seen: list[tuple[int, int]] = []
    calibration = calibrate(
        rebuild, lpips, TRAINED, NORMAL[:2], make_sampler, config, lambda done, total: seen.append((done, total))
    )
    shown = [to_unit_range(TRAINED[index]) for index in (0, 2, 4)]
    accepted = fit_gaussian(feature_pair(lpips, image, rebuild(image)) for image in shown)
    assert calibration.normal_features is not None
    torch.testing.assert_close(calibration.normal_features.means, accepted.means)
    torch.testing.assert_close(calibration.normal_features.whitening, accepted.whitening)
    assert calibration.spreads.keys() == {"residual", "ssim", "lpips", "features"}
    assert seen == [(done, 5) for done in range(1, 6)]


@pytest.mark.parametrize("map_name", ["features", "combined"])
def test_a_calibration_comes_back_from_json_and_tensors(lpips: LPIPS, map_name: MapName) -> None:
    config = ScoringConfig(map=map_name, smoothing=1.0)
    calibration = calibrate(rebuild, lpips, TRAINED[:2], NORMAL[:2], make_sampler, config)
    calibration = replace(calibration, candidates=(Candidate("features", 1.0, 0.75, 0.5),))
    values, tensors = calibration.to_state()
    found = Calibration.from_state(json.loads(json.dumps(values)), tensors)
    assert replace(found, normal_features=None) == replace(calibration, normal_features=None)
    assert found.normal_features is not None
    assert calibration.normal_features is not None
    for mine, other in zip(
        (*found.normal_features.means, *found.normal_features.whitening),
        (*calibration.normal_features.means, *calibration.normal_features.whitening),
        strict=True,
    ):
        assert torch.equal(mine, other)


def test_a_calibration_without_lpips_has_no_tensors() -> None:
    calibration = calibrate(rebuild, None, [], NORMAL, make_sampler, FIXED)
    values, tensors = calibration.to_state()
    assert tensors == {}
    assert Calibration.from_state(json.loads(json.dumps(values)), {}) == calibration


@pytest.mark.parametrize(
    ("map_name", "with_features", "needed"),
    [
        ("residual", True, False),
        ("ssim", True, False),
        ("lpips", True, True),
        ("features", True, True),
        ("combined", True, True),
        ("combined", False, False),
    ],
)
def test_lpips_is_needed_where_the_map_is_made_of_it(map_name: str, with_features: bool, needed: bool) -> None:
    names = ("residual", "ssim", "lpips", "features") if with_features else ("residual", "ssim")
    spreads = {name: Spread(0.0, 1.0) for name in names}
    assert Calibration(map_name, 0.0, spreads, None, 1.0, ()).needs_lpips == needed
