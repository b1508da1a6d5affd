"""Maps of LPIPS features: their published distance, and how unusual they are together with the reconstruction's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.lpips import LPIPS

# The first layer answers to fine grain, which differs between normal images as much as between normal and defective.
_FIRST_LAYER = 1
# Added to every variance, as a share of their mean: directions that normal images hardly use would otherwise decide.
_SHRINKAGE = 0.1


@dataclass(frozen=True)
class FeaturePair:
    """LPIPS features of an image and of its reconstruction, five layers [c, h, w] each."""

    image: tuple[Tensor, ...]
    reconstruction: tuple[Tensor, ...]

    def joined(self) -> list[Tensor]:
        """Both, stacked along the channels, of the layers that :class:`FeatureGaussian` describes: [2 c, h, w]."""
        pairs = zip(self.image[_FIRST_LAYER:], self.reconstruction[_FIRST_LAYER:], strict=True)
        return [torch.cat(pair) for pair in pairs]


@dataclass(frozen=True)
class FeatureGaussian:
    """What the joined features of normal images look like: a Gaussian for each layer."""

    means: tuple[Tensor, ...]  # [2 c]
    whitening: tuple[Tensor, ...]  # [2 c, 2 c], the inverse Cholesky factor of the covariance

    def to(self, device: torch.device) -> "FeatureGaussian":
        return FeatureGaussian(
            tuple(mean.to(device) for mean in self.means), tuple(matrix.to(device) for matrix in self.whitening)
        )


@torch.no_grad()
def feature_pair(lpips: LPIPS, image: Tensor, reconstruction: Tensor) -> FeaturePair:
    """LPIPS features of an image and of its reconstruction, both [C, H, W] in [0, 1]."""
    both = lpips.features(torch.stack((image, reconstruction)))
    return FeaturePair(tuple(layer[0] for layer in both), tuple(layer[1] for layer in both))


def fit_gaussian(pairs: Iterable[FeaturePair]) -> FeatureGaussian:
    """The Gaussians of normal features, at least one pair. Sums are held in float64, one image at a time."""
    sums: list[Tensor] = []
    products: list[Tensor] = []
    counts: list[int] = []
    for pair in pairs:
        layers = [layer.double().flatten(1) for layer in pair.joined()]
        if not sums:
            sums = [torch.zeros_like(layer[:, 0]) for layer in layers]
            products = [torch.zeros_like(total.outer(total)) for total in sums]
            counts = [0] * len(layers)
        for index, layer in enumerate(layers):
            sums[index] += layer.sum(dim=1)
            products[index] += layer @ layer.T
            counts[index] += layer.shape[1]
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    whitening = [
        _whitening(product / count - mean.outer(mean))
        for product, count, mean in zip(products, counts, means, strict=True)
    ]
    return FeatureGaussian(tuple(mean.float() for mean in means), tuple(matrix.float() for matrix in whitening))


def lpips_map(lpips: LPIPS, pair: FeaturePair, size: tuple[int, int]) -> Tensor:
    """The spatial map of the LPIPS distance: squared differences weighed by the published heads, [H, W]."""
    layers = []
    for index, (image, reconstruction) in enumerate(zip(pair.image, pair.reconstruction, strict=True)):
        head = lpips.get_buffer(f"head{index}")[0]
        layers.append((head * (image - reconstruction).square()).sum(dim=0))
    return _sum_resized(layers, size)


def unusual_map(pair: FeaturePair, normal: FeatureGaussian, size: tuple[int, int]) -> Tensor:
    """Squared Mahalanobis distance of the joined features from the normal ones, per channel, [H, W].

    The layers' distances are resized bilinearly and added.
    """
    layers = []
    for joined, mean, whitening in zip(pair.joined(), normal.means, normal.whitening, strict=True):
        centred = joined.flatten(1) - mean.unsqueeze(1)
        layers.append((whitening @ centred).square().mean(dim=0).view(joined.shape[1:]))
    return _sum_resized(layers, size)


def _whitening(covariance: Tensor) -> Tensor:
    variances = covariance.diagonal()
    # Features that never answer have no variance at all; the floor keeps even those invertible.
    shrinkage = _SHRINKAGE * variances.mean().clamp_min(1e-12)
    floor = shrinkage * torch.eye(len(variances)).to(covariance)
    whitening: Tensor = torch.linalg.inv(torch.linalg.cholesky(covariance + floor))
    return whitening


def _sum_resized(layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    resized = [F.interpolate(layer[None, None], size=size, mode="bilinear", align_corners=False) for layer in layers]
    return torch.stack(resized).sum(dim=0)[0, 0]
