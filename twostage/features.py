"""The standardised feature map: how unusual the difference of LPIPS features is, channel by channel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.lpips import LPIPS

# Added to every standard deviation: channels that never answer on normal images would otherwise divide by nothing.
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class FeatureSpread:
    """Mean and standard deviation of every channel's feature difference over normal images, a tensor [C] a layer."""

    means: tuple[Tensor, ...]
    deviations: tuple[Tensor, ...]

    def to(self, device: torch.device) -> "FeatureSpread":
        return FeatureSpread(
            tuple(mean.to(device) for mean in self.means), tuple(spread.to(device) for spread in self.deviations)
        )


@torch.no_grad()
def feature_differences(lpips: LPIPS, image: Tensor, reconstruction: Tensor) -> list[Tensor]:
    """LPIPS features of an image minus those of its reconstruction, both [C, H, W]: five tensors [c, h, w]."""
    given, rebuilt = lpips.features(image.unsqueeze(0)), lpips.features(reconstruction.unsqueeze(0))
    return [(feature - other)[0] for feature, other in zip(given, rebuilt, strict=True)]


def measure_spread(differences: Iterable[Sequence[Tensor]]) -> FeatureSpread:
    """The spread over the feature differences of normal images; at least one image. Sums are held in float64."""
    sums: list[Tensor] = []
    squares: list[Tensor] = []
    counts: list[int] = []
    for layers in differences:
        values = [layer.double().flatten(1) for layer in layers]
        if not sums:
            sums = [torch.zeros_like(value[:, 0]) for value in values]
            squares = [torch.zeros_like(total) for total in sums]
            counts = [0] * len(values)
        for index, value in enumerate(values):
            sums[index] += value.sum(dim=1)
            squares[index] += value.square().sum(dim=1)
            counts[index] += value.shape[1]
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    deviations = [
        (square / count - mean.square()).clamp_min(0).sqrt()
        for square, count, mean in zip(squares, counts, means, strict=True)
    ]
    return FeatureSpread(tuple(mean.float() for mean in means), tuple(spread.float() for spread in deviations))


def lpips_map(lpips: LPIPS, differences: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The spatial map of the LPIPS distance: squared differences weighed by the published heads, [H, W]."""
    heads = [lpips.get_buffer(f"head{index}")[0] for index in range(len(differences))]
    return _sum_resized(
        [(head * layer.square()).sum(dim=0) for head, layer in zip(heads, differences, strict=True)], size
    )


def standardised_map(differences: Sequence[Tensor], spread: FeatureSpread, size: tuple[int, int]) -> Tensor:
    """Mean squared deviation from the normal difference, in units of its spread, [H, W]."""
    layers = []
    for difference, mean, deviation in zip(differences, spread.means, spread.deviations, strict=True):
        scale = deviation.view(-1, 1, 1) + _SMALLEST_DEVIATION
        layers.append(((difference - mean.view(-1, 1, 1)) / scale).square().mean(dim=0))
    return _sum_resized(layers, size)


def _sum_resized(layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    resized = [F.interpolate(layer[None, None], size=size, mode="bilinear", align_corners=False) for layer in layers]
    return torch.stack(resized).sum(dim=0)[0, 0]
