"""From an image and its reconstruction to anomaly maps and an image score."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.features import FeatureGaussian, feature_pair, lpips_map, unusual_map
from twostage.lpips import LPIPS
from twostage_kernels import ssim

COMBINED = "combined"
LPIPS_MAPS = ("lpips", "features")
COMBINED_MAPS = ("residual", "ssim", "features")
SMOOTHINGS = (0.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a map over normal pixels."""

    mean: float
    deviation: float

    def standardise(self, values: Tensor) -> Tensor:
        return (values - self.mean) / max(self.deviation, 1e-12)


@torch.no_grad()
def pixel_maps(image: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
    """How far an image is from its reconstruction at every pixel, by the measures that need no network.

    Args:
        image, reconstruction: [C, H, W] in [0, 1].

    Returns:
        float32 [H, W] each: ``residual`` (mean absolute difference over channels) and ``ssim`` (1 - SSIM, mean over
        channels).
    """
    given, rebuilt = image.unsqueeze(0), reconstruction.unsqueeze(0)
    return {
        "residual": (given - rebuilt).abs().mean(dim=1)[0],
        "ssim": (1 - ssim(given, rebuilt, padding="same", reduction="none")).mean(dim=1)[0],
    }


@torch.no_grad()
def base_maps(
    image: Tensor, reconstruction: Tensor, lpips: LPIPS | None, features: FeatureGaussian | None
) -> dict[str, Tensor]:
    """Every map that can be scored by, ``combined`` apart.

    Args:
        image, reconstruction: [C, H, W] in [0, 1].
        lpips: gives the two maps of features; None leaves them out.
        features: what is normal; needed where ``lpips`` is given.

    Returns:
        float32 [H, W] each: those of :func:`pixel_maps`, ``lpips`` (the spatial map of the LPIPS distance) and
        ``features`` (how unusual the features of the image and of its reconstruction are together).
    """
    maps = pixel_maps(image, reconstruction)
    if lpips is not None and features is not None:
        pair = feature_pair(lpips, image, reconstruction)
        size = (image.shape[1], image.shape[2])
        maps["lpips"] = lpips_map(lpips, pair, size)
        maps["features"] = unusual_map(pair, features, size)
    return maps


def score_map(maps: Mapping[str, Tensor], name: str, smoothing: float, spreads: Mapping[str, Spread]) -> Tensor:
    """One map to score by: a base map, or for ``combined`` the sum of :data:`COMBINED_MAPS` in units of their spread.

    Args:
        smoothing: standard deviation of a Gaussian in pixels; 0 leaves the map as it is.
        spreads: of every base map over normal pixels.

    Returns:
        float32 [H, W]; higher is more anomalous.
    """
    if name == COMBINED:
        parts = [spreads[key].standardise(values) for key, values in maps.items() if key in COMBINED_MAPS]
        chosen = torch.stack(parts).sum(dim=0)
    else:
        chosen = maps[name]
    return smoothed(chosen, smoothing) if smoothing > 0 else chosen


def smoothed(values: Tensor, sigma: float) -> Tensor:
    """A map [H, W] under a Gaussian of ``sigma`` pixels, cut off at four sigma; beyond its border it stays as there."""
    radius = int(4 * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1, device=values.device, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offset / sigma).square())
    kernel = (kernel / kernel.sum()).to(values.dtype)
    padded = F.pad(values[None, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[0, 0]


def resize_map(score: Tensor, size: tuple[int, int]) -> Tensor:
    """A map [H, W] at another resolution, bilinear."""
    if tuple(score.shape) == size:
        return score
    return F.interpolate(score[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def image_score(score: Tensor, fraction: float) -> float:
    """Mean of the highest ``fraction`` of a map's values (of one at least)."""
    count = max(1, round(score.numel() * fraction))
    return float(score.flatten().topk(count).values.mean())
