"""Makes a backend's similarity kernel operators of torch: schema, fake kernel, autograd.

Each backend has three: the reduced score together with its gradients (one pass over the images), the map, and the
map's backward.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

NAMESPACE = "twostage_kernels"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_IMAGES = (
    "Tensor prediction, Tensor target, Tensor sigma, float[]? weights, int window_size, float data_range, float k1, "
    "float k2, str padding"
)
_WISHES = "bool prediction_gradient, bool target_gradient"
_TWICE = "aw_ssim and ssim can be differentiated only once by this backend; backend='reference' can be more often"


class Settings(NamedTuple):
    """What an operator takes beside the images, in the order of its schema."""

    sigma: Tensor  # [B] pixels
    weights: Sequence[float] | None  # None: the product form
    window_size: int
    data_range: float
    k1: float
    k2: float
    padding: str


class SimilarityKernel(Protocol):
    """Fills those of ``value``, ``scores`` and ``gradients`` that are given; all are contiguous.

    Gradients are those of ``value``, summed over samples, or with ``upstream`` those of the map times ``upstream``.
    ``reduction`` is that of ``value``: "mean", "sample" or "loss", which is 1 - mean; "none" without a value.
    """

    def __call__(
        self,
        prediction: Tensor,  # [B, C, H, W]
        target: Tensor,  # [B, C, H, W]
        settings: Settings,
        reduction: str,
        *,
        upstream: Tensor | None = None,  # [B, C, H', W']
        value: Tensor | None = None,  # [], or [B] for "sample"
        scores: Tensor | None = None,  # [B, C, H', W']
        gradients: Sequence[Tensor | None] = (None, None),  # [B, C, H, W]
    ) -> None: ...


class Similarity(Protocol):
    """A backend's entry, for callers who have checked their arguments."""

    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        sigma: Tensor,
        weights: Sequence[float] | None,
        window_size: int,
        data_range: float,
        k1: float,
        k2: float,
        padding: str,
        reduction: str,
    ) -> Tensor: ...


def register_similarity(backend: str, device: str, kernel: SimilarityKernel) -> Similarity:
    """Define the operators of ``backend``, with ``kernel`` for ``device`` (a dispatch key such as "CPU")."""
    reduced = _define(f"{backend}_similarity", f"({_IMAGES}, str reduction, {_WISHES}) -> (Tensor, Tensor, Tensor)")
    scores = _define(f"{backend}_similarity_map", f"({_IMAGES}) -> Tensor")
    backward = _define(
        f"{backend}_similarity_map_backward", f"(Tensor upstream, {_IMAGES}, {_WISHES}) -> (Tensor, Tensor)"
    )
    _register_reduced(reduced, kernel, device)
    _register_map(scores, backward, kernel, device)

    def similarity(
        prediction: Tensor,
        target: Tensor,
        sigma: Tensor,
        weights: Sequence[float] | None,
        window_size: int,
        data_range: float,
        k1: float,
        k2: float,
        padding: str,
        reduction: str,
    ) -> Tensor:
        settings = Settings(sigma, weights, window_size, data_range, k1, k2, padding)
        value: Tensor
        if reduction == "none":
            value = scores(prediction, target, *settings)
            return value
        recorded = torch.is_grad_enabled()
        wishes = recorded and prediction.requires_grad, recorded and target.requires_grad
        if _is_eager(prediction, target, sigma):
            value = _Reduced.apply(kernel, settings, reduction, wishes, prediction, target)  # type: ignore[no-untyped-call]
        else:
            value, _, _ = reduced(prediction, target, *settings, reduction, *wishes)
        return value

    return similarity


def _define(name: str, schema: str) -> torch._ops.OpOverload:
    _LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    op: torch._ops.OpOverload = getattr(getattr(torch.ops, NAMESPACE), name).default
    return op


def _sum_dtype(images: Tensor) -> torch.dtype:
    """What local sums are held in; results and gradients come in it too."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def _empty_value(images: Tensor, reduction: str) -> Tensor:
    shape = images.shape[:1] if reduction == "sample" else ()
    return torch.empty(shape, dtype=_sum_dtype(images), device=images.device)


def _empty_map(images: Tensor, window_size: int, padding: str) -> Tensor:
    batch, channels, height, width = images.shape
    cut = 0 if padding == "same" else window_size - 1
    shape = (batch, channels, height - cut, width - cut)
    return torch.empty(shape, dtype=_sum_dtype(images), device=images.device)


def _empty_gradients(images: Tensor, wishes: Sequence[bool]) -> list[Tensor | None]:
    dtype, device = _sum_dtype(images), images.device
    return [torch.empty(images.shape, dtype=dtype, device=device) if wanted else None for wanted in wishes]


def _as_outputs(images: Tensor, gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """An operator returns tensors: a gradient that was not wanted has no elements."""
    return [
        torch.empty((0,), dtype=_sum_dtype(images), device=images.device) if gradient is None else gradient
        for gradient in gradients
    ]


def _is_eager(*tensors: Tensor) -> bool:
    """Whether nobody watches: then the dispatcher's detour, which takes longer than a small image, can be left out."""
    return (
        not torch.compiler.is_compiling()
        and all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
    )


class _Reduced(torch.autograd.Function):
    """The reduced operator without the dispatcher."""

    @staticmethod
    def forward(
        ctx: Any,
        kernel: SimilarityKernel,
        settings: Settings,
        reduction: str,
        wishes: Sequence[bool],
        prediction: Tensor,
        target: Tensor,
    ) -> Tensor:
        value = _empty_value(prediction, reduction)
        ctx.gradients = _empty_gradients(prediction, wishes)
        ctx.save_for_backward(prediction, target)
        kernel(prediction, target, settings, reduction, value=value, gradients=ctx.gradients)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return None, None, None, None, *_scaled_gradients(ctx, upstream[0], ctx.needs_input_grad[4:])


def _register_reduced(op: torch._ops.OpOverload, kernel: SimilarityKernel, device: str) -> None:
    def run(prediction: Tensor, target: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        *settings, reduction, prediction_gradient, target_gradient = arguments
        value = _empty_value(prediction, reduction)
        gradients = _empty_gradients(prediction, (prediction_gradient, target_gradient))
        kernel(prediction, target, Settings(*settings), reduction, value=value, gradients=gradients)
        return value, *_as_outputs(prediction, gradients)

    def fake(prediction: Tensor, target: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        reduction, *wishes = arguments[-3:]
        gradients = _empty_gradients(prediction, wishes)
        return _empty_value(prediction, reduction), *_as_outputs(prediction, gradients)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.gradients = output[1:]
        ctx.mark_non_differentiable(*ctx.gradients)
        ctx.save_for_backward(*inputs[:2])

    def backward(ctx: Any, upstream: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        return *_scaled_gradients(ctx, upstream, ctx.needs_input_grad[:2]), *[None] * (len(ctx.needs_input_grad) - 2)

    _LIBRARY.impl(op, run, device)
    torch.library.register_fake(op, fake, lib=_LIBRARY)
    torch.library.register_autograd(op, backward, setup_context=setup_context, lib=_LIBRARY)


def _register_map(
    op: torch._ops.OpOverload, backward_op: torch._ops.OpOverload, kernel: SimilarityKernel, device: str
) -> None:
    def run(prediction: Tensor, target: Tensor, *arguments: Any) -> Tensor:
        settings = Settings(*arguments)
        scores = _empty_map(prediction, settings.window_size, settings.padding)
        kernel(prediction, target, settings, "none", scores=scores)
        return scores

    def fake(prediction: Tensor, target: Tensor, *arguments: Any) -> Tensor:
        settings = Settings(*arguments)
        return _empty_map(prediction, settings.window_size, settings.padding)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.settings = inputs[3:]

    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        prediction, target, sigma = ctx.saved_tensors
        wishes = ctx.needs_input_grad[:2]
        with torch.no_grad():
            gradients = backward_op(upstream, prediction, target, sigma, *ctx.settings, *wishes)
        finished = (
            _finished(gradient, prediction, target) if wanted else None
            for gradient, wanted in zip(gradients, wishes, strict=True)
        )
        return *finished, *[None] * (len(ctx.needs_input_grad) - 2)

    def run_backward(upstream: Tensor, prediction: Tensor, target: Tensor, *arguments: Any) -> list[Tensor]:
        *settings, prediction_gradient, target_gradient = arguments
        gradients = _empty_gradients(prediction, (prediction_gradient, target_gradient))
        kernel(prediction, target, Settings(*settings), "none", upstream=upstream, gradients=gradients)
        return _as_outputs(prediction, gradients)

    def fake_backward(upstream: Tensor, prediction: Tensor, target: Tensor, *arguments: Any) -> list[Tensor]:
        return _as_outputs(prediction, _empty_gradients(prediction, arguments[-2:]))

    def refuse(ctx: Any, *upstream: Tensor) -> None:
        raise RuntimeError(_TWICE)

    _LIBRARY.impl(op, run, device)
    torch.library.register_fake(op, fake, lib=_LIBRARY)
    torch.library.register_autograd(op, backward, setup_context=setup_context, lib=_LIBRARY)
    _LIBRARY.impl(backward_op, run_backward, device)
    torch.library.register_fake(backward_op, fake_backward, lib=_LIBRARY)
    torch.library.register_autograd(backward_op, refuse, lib=_LIBRARY)


class _Once(torch.autograd.Function):
    """Passes a gradient on; differentiating that gradient again, by the images it came from, raises."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        raise RuntimeError(_TWICE)


def _finished(gradient: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
    """In the images' dtype and, where derivatives are recorded, once only."""
    if gradient.dtype != prediction.dtype:
        gradient = gradient.to(prediction.dtype)
    if not torch.is_grad_enabled():
        return gradient
    once: Tensor = _Once.apply(gradient, prediction, target)  # type: ignore[no-untyped-call]
    return once


def _scaled_gradients(ctx: Any, upstream: Tensor, wishes: Sequence[bool]) -> list[Tensor | None]:
    """``ctx.gradients`` times the derivative of what became of the value. Often that is 1: then nothing is computed."""
    prediction, target = ctx.saved_tensors
    scale = upstream.view(-1, 1, 1, 1) if upstream.ndim else upstream
    # A gradient that will be asked for again can not be given away: the receiver may write to it.
    readable = type(upstream) is Tensor and upstream.device.type == "cpu" and not upstream.ndim
    unscaled = readable and not torch._C._autograd._get_current_graph_task_keep_graph() and upstream.item() == 1.0
    return [
        _finished(gradient if unscaled else gradient * scale, prediction, target) if wanted else None
        for gradient, wanted in zip(ctx.gradients, wishes, strict=True)
    ]
