"""Makes a backend's ``feature_distance`` operators of torch: schema, fake kernel, autograd."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from twostage_kernels.eager import is_eager
from twostage_kernels.operators import define, implement
from twostage_kernels.precision import sum_dtype

_TWICE = "feature_distance can be differentiated only once by this backend; backend='reference' can be more often"


class FeatureKernel(Protocol):
    """Fills ``distance``, or with ``upstream`` ``gradient``, which has the strides of ``channels_last``.

    ``weights``, ``distance`` and ``upstream`` are in the precision of the sums and contiguous.
    """

    def __call__(
        self,
        prediction: Tensor,  # [B, C, H, W]
        target: Tensor,  # [B, C, H, W]
        weights: Tensor,  # [C]
        *,
        distance: Tensor | None = None,  # [B, 1, H, W]
        upstream: Tensor | None = None,  # [B, 1, H, W]
        gradient: Tensor | None = None,  # [B, C, H, W]
    ) -> None: ...


class FeatureDistance(Protocol):
    """A backend's entry, for callers who have checked their arguments: ``weights`` are in the precision of the sums."""

    def __call__(self, prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor: ...


def register_feature_distance(backend: str, kernels: Mapping[str, FeatureKernel]) -> FeatureDistance:
    """Define the operators of ``backend``, with a kernel for each type of torch.device ("cpu", "cuda")."""
    features = "Tensor prediction, Tensor target, Tensor weights"
    forward = define(f"{backend}_feature_distance", f"({features}) -> Tensor")
    backward = define(f"{backend}_feature_distance_backward", f"(Tensor upstream, {features}) -> Tensor")

    def run(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        distance = _empty_distance(prediction)
        kernels[prediction.device.type](prediction, target, weights, distance=distance)
        return distance

    def run_backward(upstream: Tensor, prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        gradient = _empty_gradient(prediction)
        upstream = upstream.contiguous()
        kernels[prediction.device.type](prediction, target, weights, upstream=upstream, gradient=gradient)
        return gradient

    def fake(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return _empty_distance(prediction)

    def fake_backward(upstream: Tensor, prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return _empty_gradient(prediction)

    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return backward(upstream, *ctx.saved_tensors), None, None

    def refuse(ctx: Any, *upstream: Tensor) -> None:
        raise RuntimeError(_TWICE)

    implement(forward, kernels, run, fake, backward=differentiate, setup_context=setup_context)
    implement(backward, kernels, run_backward, fake_backward, backward=refuse)

    class Eager(torch.autograd.Function):
        """The operator without the dispatcher."""

        @staticmethod
        def forward(ctx: Any, prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
            ctx.save_for_backward(prediction, target, weights)
            return run(prediction, target, weights)

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            differentiated = backward if torch.is_grad_enabled() else run_backward  # the first refuses a second time
            return differentiated(upstream, *ctx.saved_tensors), None, None

    def feature_distance(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        target, weights = target.detach(), weights.detach()
        apply: Callable[..., Tensor] = Eager.apply if is_eager(prediction, target, weights) else forward
        return apply(prediction, target, weights)

    return feature_distance


def _empty_distance(features: Tensor) -> Tensor:
    batch, _, height, width = features.shape
    return torch.empty((batch, 1, height, width), dtype=sum_dtype(features), device=features.device)


def _empty_gradient(features: Tensor) -> Tensor:
    return torch.empty_like(features, memory_format=torch.channels_last)
