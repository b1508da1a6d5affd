"""AW-SSIM and SSIM by the maps of ``aw_ssim``, as every backend offers them."""

import torch
from torch import Tensor

from twostage_kernels.reference.aw_ssim import Statistics, additive_map, local_statistics, product_map
from twostage_kernels.settings import Settings

# Of a window that sees less than this through its mask nothing can be told: it scores as equal images do.
LEAST_COVERAGE = 1e-8


def similarity(prediction: Tensor, target: Tensor, settings: Settings, reduction: str) -> Tensor:
    """See :class:`twostage_kernels.settings.Similarity`; in ``sigma``'s precision, under autocast too."""
    with torch.autocast(prediction.device.type, enabled=False):
        x, y = prediction.to(settings.sigma.dtype), target.to(settings.sigma.dtype)
        mask = settings.mask
        if mask is not None:
            x, y = _without_hidden_pixels(x, mask), _without_hidden_pixels(y, mask)
        statistics = local_statistics(x, y, settings.sigma, settings.window_size, settings.padding, mask)
        values = _score_map(statistics, settings)
        if reduction == "none":
            return values
        windows = _mean(values, statistics.coverage, settings.highest, per_sample=reduction == "sample")
        if reduction != "loss":
            return windows
        difference = _mean((x - y).abs() / settings.data_range, mask, 0.0, per_sample=False)
        return (1 - settings.l1_weight) * (1 - windows) + settings.l1_weight * difference


def _score_map(statistics: Statistics, settings: Settings) -> Tensor:
    c1, c2 = (settings.k1 * settings.data_range) ** 2, (settings.k2 * settings.data_range) ** 2
    if settings.weights is None:
        values = product_map(statistics, c1, c2, luminance=settings.luminance)
    else:
        alpha, beta, gamma = settings.weights
        values = additive_map(statistics, (alpha, beta, gamma), c1, c2, settings.data_range)
    if statistics.coverage is None:
        return values
    return torch.where(statistics.coverage >= LEAST_COVERAGE, values, settings.highest)


def _without_hidden_pixels(image: Tensor, mask: Tensor) -> Tensor:
    """``image`` with the mean of its visible pixels where the mask is 0."""
    visible = torch.where(mask > 0, image, 0)
    total = mask.sum(dim=(2, 3), keepdim=True)
    mean = (mask * visible).sum(dim=(2, 3), keepdim=True) / torch.where(total > 0, total, 1)
    return torch.where(mask > 0, image, mean.detach())


def _mean(values: Tensor, weights: Tensor | None, of_nothing: float, *, per_sample: bool) -> Tensor:
    """Of every sample or of the batch; ``of_nothing`` where all weights are 0."""
    dims = (1, 2, 3) if per_sample else (0, 1, 2, 3)
    if weights is None:
        return values.mean(dim=dims)
    weights = weights.expand_as(values)
    total = weights.sum(dim=dims)
    seen = total > 0
    return torch.where(seen, (weights * values).sum(dim=dims) / torch.where(seen, total, 1), of_nothing)
