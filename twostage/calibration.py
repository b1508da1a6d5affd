"""What is settled on normal images before any test image is seen: normal features, score map, threshold."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from twostage.config import ScoringConfig
from twostage.counter_random import uniform
from twostage.data import GOOD
from twostage.data.order import evenly_spread
from twostage.data.packing import to_unit_range
from twostage.defects import DefectSampler
from twostage.evaluation import Evaluator, threshold_from_normals
from twostage.features import FeatureGaussian, feature_pair, fit_gaussian
from twostage.kept_maps import KeptMaps, Maps
from twostage.lpips import LPIPS
from twostage.scoring import COMBINED, COMBINED_MAPS, LPIPS_MAPS, SMOOTHINGS, Spread, base_maps, image_score, score_map

_PLACE_STREAM = 5
# A pasted defect that changes a pixel by less than this share of the range is not held against the detector.
_VISIBLE = 0.02
_SYNTHETIC_IMAGES = 48
_FEATURE_IMAGES = 100


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
    normal_features: FeatureGaussian | None
    """What LPIPS features of normal images and their reconstructions look like; None without LPIPS."""
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
        features = None if self.normal_features is None else self.normal_features.to(device)
        return replace(self, normal_features=features)

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What JSON holds of it, and the tensors."""
        values = asdict(replace(self, normal_features=None))
        del values["normal_features"]
        tensors: dict[str, Tensor] = {}
        if self.normal_features is not None:
            layers = zip(self.normal_features.means, self.normal_features.whitening, strict=True)
            for index, (mean, whitening) in enumerate(layers):
                tensors[f"features.{index}.mean"] = mean
                tensors[f"features.{index}.whitening"] = whitening
        return values, tensors

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Calibration":
        """The inverse of :meth:`to_state`."""
        layers = range(sum(name.startswith("features.") and name.endswith(".mean") for name in tensors))
        means = tuple(tensors[f"features.{index}.mean"] for index in layers)
        whitening = tuple(tensors[f"features.{index}.whitening"] for index in layers)
        return cls(
            map=values["map"],
            smoothing=values["smoothing"],
            spreads={name: Spread(**spread) for name, spread in values["spreads"].items()},
            normal_features=FeatureGaussian(means, whitening) if means else None,
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
    trained: Sequence[Tensor],
    normal: Sequence[Tensor],
    sampler: Callable[[], DefectSampler],
    config: ScoringConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Learn what normal features look like, choose map and smoothing where they are left open, set the threshold.

    A choice maximises the mean of pixel and image AuROC on synthetic defects; all else comes from normal images alone.

    Args:
        rebuild: the model's reconstruction of an image [C, H, W] in [0, 1].
        lpips: for the maps of its features; None leaves them out.
        trained: normal images the model was trained on, [C, H, W] each; up to a hundred of them, evenly spread,
            show what normal features look like.
        normal: held-out normal images; their scores set the threshold.
        sampler: makes the sampler of defects for the held-out images, if there is a choice to make.
    """
    choose = config.map == "auto" or config.smoothing is None
    pairs = synthetic_defects(normal, sampler()) if choose else []
    shown = evenly_spread(len(trained), _FEATURE_IMAGES).tolist() if lpips is not None else []
    total = len(shown) + len(normal) + len(pairs)
    done = 0

    def rebuilt(image: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal done
        other = rebuild(image)
        done += 1
        if progress is not None:
            progress(done, total)
        return image.to(other.device), other

    features = None
    if lpips is not None:
        features = fit_gaussian(feature_pair(lpips, *rebuilt(to_unit_range(trained[index]))) for index in shown)
    normal_maps, defective_maps = KeptMaps(), KeptMaps()
    pixels: defaultdict[str, _Moments] = defaultdict(_Moments)
    for image in normal:
        maps = base_maps(*rebuilt(to_unit_range(image)), lpips, features)
        normal_maps.append(maps)
        for name, values in maps.items():
            pixels[name].add(values)
    for image, _ in pairs:
        defective_maps.append(base_maps(*rebuilt(image), lpips, features))
    spreads = {name: moments.spread for name, moments in pixels.items()}
    ranked = _rank(normal_maps, defective_maps, [mask for _, mask in pairs], spreads, config) if pairs else []
    chosen_map = ranked[0].map if ranked else COMBINED if config.map == "auto" else config.map
    smoothing = ranked[0].smoothing if ranked else SMOOTHINGS[0] if config.smoothing is None else config.smoothing
    scores = [
        image_score(score_map(maps, chosen_map, smoothing, spreads), config.image_fraction) for maps in normal_maps
    ]
    threshold = threshold_from_normals(torch.tensor(scores, dtype=torch.float64), config.quantile)
    return Calibration(chosen_map, smoothing, spreads, features, threshold, tuple(ranked))


class _Moments:
    """Mean and variance of numbers that come in parts."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0  # of distances from the mean, summed

    def add(self, values: Tensor) -> None:
        numbers = values.double()
        mean = float(numbers.mean())
        before, self._count = self._count, self._count + numbers.numel()
        shift = mean - self._mean
        self._mean += shift * numbers.numel() / self._count
        self._squares += float((numbers - mean).square().sum())
        self._squares += shift * shift * before * numbers.numel() / self._count

    @property
    def spread(self) -> Spread:
        return Spread(self._mean, math.sqrt(self._squares / (self._count - 1)))


def _rank(
    normal: Iterable[Maps],
    defective: Iterable[Maps],
    masks: Sequence[Tensor],
    spreads: dict[str, Spread],
    config: ScoringConfig,
) -> list[Candidate]:
    names = (*spreads, COMBINED) if config.map == "auto" else (config.map,)
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
