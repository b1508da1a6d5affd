"""A layer of LPIPS in plain torch."""

from torch import Tensor

from twostage_kernels.precision import sum_dtype

LEAST_SQUARE = 1e-10
"""Added to a squared length: features that are all zero stay so, and have a finite derivative."""


def feature_distance(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """See :class:`twostage_kernels.feature_registration.FeatureDistance`."""
    dtype = sum_dtype(prediction)
    difference = _unit_length(prediction.to(dtype)) - _unit_length(target.detach().to(dtype))
    return (weights.view(1, -1, 1, 1) * difference.square()).sum(1, keepdim=True)


def _unit_length(features: Tensor) -> Tensor:
    return features * (features.square().sum(1, keepdim=True) + LEAST_SQUARE).rsqrt()
