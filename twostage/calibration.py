"""What is settled on held-out normal images before any test image is seen: score map, smoothing, threshold."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from twostage.config import ScoringConfig
from twostage.counter_random import uniform
from twostage.data import GOOD
from twostage.data.patches import to_unit_range
from twostage.defects import DefectSampler
from twostage.evaluation import Evaluator, threshold_from_normals
from twostage.features import FeatureSpread, feature_differences, measure_spread
from twostage.lpips import LPIPS
from twostage.scoring import COMBINED, COMBINED_MAPS, LPIPS_MAPS, SMOOTHINGS, Spread, base_maps, image_score, score_map

_PLACE_STREAM = 5
# A pasted defect that changes a pixel by less than this share of the range is not held against the detector.
_VISIBLE = 0.02
_SYNTHETIC_IMAGES = 48

Maps = dict[str, Tensor]


@dataclass(frozen=True)
class Candidate:
    """How well one way of scoring told synthetic defects from held-out normal images."""

    map: str
    smoothing: float
    pixel_auroc: float
    image_auroc: float


@dataclass(frozen=True)
class Calibration:
    """How a trained model scores."""

    map: str
    smoothing: float
    """Standard deviation in pixels."""
    spreads: dict[str, Spread]
    """Of every base map over the pixels of held-out normal images."""
    feature_spread: FeatureSpread | None
    """Of the LPIPS feature differences of held-out normal images; None without LPIPS."""
    threshold: float
    """An image that scores above it is defective; in the score map the same value bounds the defect."""
    candidates: tuple[Candidate, ...]
    """What synthetic validation compared, best first; empty where map and smoothing were given."""

    def score(self, maps: Maps) -> Tensor:
        """The map to score by, [H, W], from base maps."""
        return score_map(maps, self.map, self.smoothing, self.spreads)

    @property
    def needs_lpips(self) -> bool:
        if self.map == COMBINED:
            return any(name in COMBINED_MAPS for name in self.spreads if name in LPIPS_MAPS)
        return self.map in LPIPS_MAPS

    def to(self, device: torch.device) -> "Calibration":
        spread = None if self.feature_spread is None else self.feature_spread.to(device)
        return replace(self, feature_spread=spread)

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What JSON holds of it, and the tensors."""
        values = asdict(replace(self, feature_spread=None))
        del values["feature_spread"]
        tensors: dict[str, Tensor] = {}
        if self.feature_spread is not None:
            for index, (mean, deviation) in enumerate(
                zip(self.feature_spread.means, self.feature_spread.deviations, strict=True)
            ):
                tensors[f"features.{index}.mean"] = mean
                tensors[f"features.{index}.deviation"] = deviation
        return values, tensors

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Calibration":
        """The inverse of :meth:`to_state`."""
        layers = sum(name.startswith("features.") and name.endswith(".mean") for name in tensors)
        means = tuple(tensors[f"features.{index}.mean"] for index in range(layers))
        deviations = tuple(tensors[f"features.{index}.deviation"] for index in range(layers))
        return cls(
            map=values["map"],
            smoothing=values["smoothing"],
            spreads={name: Spread(**spread) for name, spread in values["spreads"].items()},
            feature_spread=FeatureSpread(means, deviations) if layers else None,
            threshold=values["threshold"],
            candidates=tuple(Candidate(**candidate) for candidate in values["candidates"]),
        )


def synthetic_defects(
    images: Sequence[Tensor], sampler: DefectSampler, *, count: int = _SYNTHETIC_IMAGES
) -> list[tuple[Tensor, Tensor]]:
    """Held-out normal images with artificial defects, and where those are visible.

    Args:
        images: [C, H, W] each, the targets of the sampler's pool; used in turn until ``count`` is reached.
        sampler: with a probability of 1 every result is defective.

    Returns:
        Images [C, H, W] in [0, 1] and masks bool [H, W]. Images on which nothing can be seen are left out.
    """
    pairs = []
    size = sampler.patch_size
    places = uniform(torch.arange(count), 2, seed=sampler.seed, stream=_PLACE_STREAM, epoch=0).tolist()
    for number, (down, across) in enumerate(places):
        index = number % len(images)
        image = to_unit_range(images[index]).clone()
        top = int(down * (image.shape[1] - size + 1))
        left = int(across * (image.shape[2] - size + 1))
        place = (slice(None), slice(top, top + size), slice(left, left + size))
        patch = image[place].unsqueeze(0)
        defective, _ = sampler.paste(patch, sampler.draw(torch.tensor([number]), torch.tensor([index]), epoch=0))
        mask = torch.zeros(image.shape[1:], dtype=torch.bool)
        mask[place[1:]] = (defective - patch).abs().mean(dim=1)[0] > _VISIBLE
        image[place] = defective[0]
        if mask.any():
            pairs.append((image, mask))
    return pairs


def calibrate(
    rebuild: Callable[[Tensor], Tensor],
    lpips: LPIPS | None,
    normal: Sequence[Tensor],
    sampler: DefectSampler,
    config: ScoringConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Measure the normal spreads, choose map and smoothing where they are left open, and set the threshold.

    A choice maximises the mean of pixel and image AuROC on synthetic defects; all else comes from normal images alone.

    Args:
        rebuild: the model's reconstruction of an image [C, H, W] in [0, 1].
        lpips: for the maps of its features; None leaves them out.
        normal: held-out normal images, [C, H, W] each.
        sampler: of defects for them.
    """
    choose = config.map == "auto" or config.smoothing is None
    pairs = synthetic_defects(normal, sampler) if choose else []
    images = [to_unit_range(image) for image in normal] + [image for image, _ in pairs]
    rebuilt = []
    for image in images:
        rebuilt.append(rebuild(image))
        if progress is not None:
            progress(len(rebuilt), len(images))
    feature_spread = None
    if lpips is not None:
        on_device = zip(images[: len(normal)], rebuilt, strict=False)
        feature_spread = measure_spread(
            feature_differences(lpips, image.to(other), other) for image, other in on_device
        )

    def maps_of(index: int) -> Maps:
        maps = base_maps(images[index].to(rebuilt[index]), rebuilt[index], lpips, feature_spread)
        return {name: values.cpu() for name, values in maps.items()}

    normal_maps = [maps_of(index) for index in range(len(normal))]
    defective_maps = [maps_of(index) for index in range(len(normal), len(images))]
    spreads = {name: _spread([maps[name] for maps in normal_maps]) for name in normal_maps[0]}
    ranked = _rank(normal_maps, defective_maps, [mask for _, mask in pairs], spreads, config) if pairs else []
    chosen_map = ranked[0].map if ranked else COMBINED if config.map == "auto" else config.map
    smoothing = ranked[0].smoothing if ranked else SMOOTHINGS[0] if config.smoothing is None else config.smoothing
    scores = [
        image_score(score_map(maps, chosen_map, smoothing, spreads), config.image_fraction) for maps in normal_maps
    ]
    threshold = threshold_from_normals(torch.tensor(scores, dtype=torch.float64), config.quantile)
    return Calibration(chosen_map, smoothing, spreads, feature_spread, threshold, tuple(ranked))


def _spread(values: Sequence[Tensor]) -> Spread:
    pixels = torch.cat([value.flatten() for value in values]).double()
    return Spread(float(pixels.mean()), float(pixels.std()))


def _rank(
    normal: Sequence[Maps],
    defective: Sequence[Maps],
    masks: Sequence[Tensor],
    spreads: dict[str, Spread],
    config: ScoringConfig,
) -> list[Candidate]:
    names = (*normal[0], COMBINED) if config.map == "auto" else (config.map,)
    smoothings = SMOOTHINGS if config.smoothing is None else (config.smoothing,)
    candidates = []
    for name, smoothing in itertools.product(names, smoothings):
        evaluator = Evaluator()
        for maps in normal:
            score = score_map(maps, name, smoothing, spreads)
            evaluator.add(score, None, image_score(score, config.image_fraction), GOOD)
        for maps, mask in zip(defective, masks, strict=True):
            score = score_map(maps, name, smoothing, spreads)
            evaluator.add(score, mask, image_score(score, config.image_fraction), "synthetic")
        found = evaluator.result().overall
        candidates.append(Candidate(name, smoothing, found.pixel_auroc, found.image_auroc))
    return sorted(candidates, key=lambda candidate: -(candidate.pixel_auroc + candidate.image_auroc))
