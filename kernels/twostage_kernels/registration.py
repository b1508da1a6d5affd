"""Makes a backend's similarity kernel operators of torch: schema, fake kernel, autograd.

Each backend has three: the reduced score together with its gradients (one pass over the images), the map, and the
map's backward.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from twostage_kernels.coverage import mask_scales
from twostage_kernels.eager import is_eager
from twostage_kernels.operators import define, implement
from twostage_kernels.precision import sum_dtype
from twostage_kernels.settings import Settings, Similarity

_IMAGES = (
    "Tensor prediction, Tensor target, Tensor sigma, Tensor? mask, float[]? weights, bool luminance, int window_size, "
    "float data_range, float k1, float k2, str padding, float l1_weight"
)
_WISHES = "bool prediction_gradient, bool target_gradient"
_TWICE = "aw_ssim and ssim can be differentiated only once by this backend; backend='reference' can be more often"
_GIVEN_AWAY = "backward of aw_ssim or ssim ran before and gave its gradient away; the first run needs retain_graph=True"


class SimilarityKernel(Protocol):
    """Fills those of ``value``, ``scores`` and ``gradients`` that are given; all are contiguous.

    Gradients are those of ``value``, summed over samples, or with ``upstream`` those of the map times ``upstream``.
    ``reduction`` is that of ``value``: "mean", "sample" or "loss"; "none" without a value. ``scales`` are those of
    :func:`twostage_kernels.coverage.mask_scales`, given with a mask and a value.
    """

    def __call__(
        self,
        prediction: Tensor,  # [B, C, H, W]
        target: Tensor,  # [B, C, H, W]
        settings: Settings,
        reduction: str,
        *,
        scales: Tensor | None = None,  # [B, 2]
        upstream: Tensor | None = None,  # [B, C, H', W']
        value: Tensor | None = None,  # [], or [B] for "sample"
        scores: Tensor | None = None,  # [B, C, H', W']
        gradients: Sequence[Tensor | None] = (None, None),  # [B, C, H, W]
    ) -> None: ...


class DeviceKernel(NamedTuple):
    """A backend's kernel for one type of device."""

    run: SimilarityKernel
    # Multiplies a gradient [B, C, H, W] in place by a factor on the device, [] or [B, 1, 1, 1].
    rescale: Callable[[Tensor, Tensor], object]


def register_similarity(backend: str, kernels: Mapping[str, DeviceKernel]) -> Similarity:
    """Define the operators of ``backend``, with a kernel for each type of torch.device ("cpu", "cuda")."""
    reduced = define(f"{backend}_similarity", f"({_IMAGES}, str reduction, {_WISHES}) -> (Tensor, Tensor, Tensor)")
    scores = define(f"{backend}_similarity_map", f"({_IMAGES}) -> Tensor")
    backward = define(
        f"{backend}_similarity_map_backward", f"(Tensor upstream, {_IMAGES}, {_WISHES}) -> (Tensor, Tensor)"
    )
    _register_reduced(reduced, kernels)
    _register_map(scores, backward, kernels)

    def similarity(prediction: Tensor, target: Tensor, settings: Settings, reduction: str) -> Tensor:
        value: Tensor
        if reduction == "none":
            value = scores(prediction, target, *settings)
            return value
        recorded = torch.is_grad_enabled()
        wishes = recorded and prediction.requires_grad, recorded and target.requires_grad
        if is_eager(prediction, target):
            kernel = kernels["cpu" if prediction.is_cpu else prediction.device.type]
            call = kernel, settings, reduction, wishes
            value = _apply_reduced(call, prediction, target)
        else:
            value, _, _ = reduced(prediction, target, *settings, reduction, *wishes)
        return value

    return similarity


def _empty_value(images: Tensor, reduction: str) -> Tensor:
    shape = images.shape[:1] if reduction == "sample" else ()
    dtype = sum_dtype(images)
    return images.new_empty(shape) if dtype == images.dtype else images.new_empty(shape, dtype=dtype)


def _empty_map(images: Tensor, window_size: int, padding: str) -> Tensor:
    batch, channels, height, width = images.shape
    cut = 0 if padding == "same" else window_size - 1
    shape = (batch, channels, height - cut, width - cut)
    return torch.empty(shape, dtype=sum_dtype(images), device=images.device)


def _empty_gradients(images: Tensor, wishes: Sequence[bool]) -> list[Tensor | None]:
    dtype = sum_dtype(images)
    if dtype == images.dtype and images.is_contiguous():  # half a microsecond less
        return [torch.empty_like(images) if wanted else None for wanted in wishes]
    return [
        torch.empty_like(images, dtype=dtype, memory_format=torch.contiguous_format) if wanted else None
        for wanted in wishes
    ]


def _as_outputs(images: Tensor, gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """An operator returns tensors: a gradient that was not wanted has no elements."""
    return [
        torch.empty((0,), dtype=sum_dtype(images), device=images.device) if gradient is None else gradient
        for gradient in gradients
    ]


_runs_again: Callable[[], bool] = torch._C._autograd._get_current_graph_task_keep_graph

# One argument instead of four: torch looks at each.
_Call = tuple[DeviceKernel, Settings, str, tuple[bool, bool]]


class _Reduced(torch.autograd.Function):
    """The reduced operator without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, call: _Call, prediction: Tensor, target: Tensor) -> Tensor:
        kernel, settings, reduction, wishes = call
        value = _empty_value(prediction, reduction)
        gradients = _empty_gradients(prediction, wishes)
        scales = None if settings.mask is None else mask_scales(prediction, settings, reduction)
        kernel.run(prediction, target, settings, reduction, scales=scales, value=value, gradients=gradients)
        # Not saved as tensors are: nobody reads the values of the images again.
        ctx.gradients, ctx.images, ctx.rescale = gradients, (prediction, target), kernel.rescale
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        if ctx.gradients is None:
            raise RuntimeError(_GIVEN_AWAY)
        gradients = _scaled_gradients(ctx, ctx.images, upstream[0], ctx.needs_input_grad[1:])
        if not _runs_again():
            ctx.gradients = ctx.images = None  # who receives a gradient that nobody else holds need not copy it
        return None, *gradients


# As _Reduced.apply, without its preparations for functorch, which take over a microsecond: see is_eager.
_apply_reduced: Callable[..., Tensor] = super(torch.autograd.Function, _Reduced).apply


def _register_reduced(op: torch._ops.OpOverload, kernels: Mapping[str, DeviceKernel]) -> None:
    def run(prediction: Tensor, target: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        *rest, reduction, prediction_gradient, target_gradient = arguments
        settings = Settings(*rest)
        value = _empty_value(prediction, reduction)
        gradients = _empty_gradients(prediction, (prediction_gradient, target_gradient))
        scales = mask_scales(prediction, settings, reduction)
        kernels[prediction.device.type].run(
            prediction, target, settings, reduction, scales=scales, value=value, gradients=gradients
        )
        return value, *_as_outputs(prediction, gradients)

    def fake(prediction: Tensor, target: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        reduction, *wishes = arguments[-3:]
        gradients = _empty_gradients(prediction, wishes)
        return _empty_value(prediction, reduction), *_as_outputs(prediction, gradients)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.gradients = _chosen(output[1:], inputs[-2:])
        ctx.rescale = None  # an operator's outputs belong to its caller
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:2])

    def backward(ctx: Any, upstream: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        gradients = _scaled_gradients(ctx, ctx.saved_tensors, upstream, ctx.needs_input_grad[:2])
        return *gradients, *[None] * (len(ctx.needs_input_grad) - 2)

    implement(op, kernels, run, fake, backward=backward, setup_context=setup_context)


def _register_map(
    op: torch._ops.OpOverload, backward_op: torch._ops.OpOverload, kernels: Mapping[str, DeviceKernel]
) -> None:
    def run(prediction: Tensor, target: Tensor, *arguments: Any) -> Tensor:
        settings = Settings(*arguments)
        scores = _empty_map(prediction, settings.window_size, settings.padding)
        kernels[prediction.device.type].run(prediction, target, settings, "none", scores=scores)
        return scores

    def fake(prediction: Tensor, target: Tensor, *arguments: Any) -> Tensor:
        settings = Settings(*arguments)
        return _empty_map(prediction, settings.window_size, settings.padding)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.settings = inputs[4:]

    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        prediction, target, sigma, mask = ctx.saved_tensors
        wishes = ctx.needs_input_grad[:2]
        with torch.no_grad():
            gradients = backward_op(upstream, prediction, target, sigma, mask, *ctx.settings, *wishes)
        finished = (
            _finished(gradient, prediction, target) if wanted else None
            for gradient, wanted in zip(gradients, wishes, strict=True)
        )
        return *finished, *[None] * (len(ctx.needs_input_grad) - 2)

    def run_backward(upstream: Tensor, prediction: Tensor, target: Tensor, *arguments: Any) -> list[Tensor]:
        *settings, prediction_gradient, target_gradient = arguments
        gradients = _empty_gradients(prediction, (prediction_gradient, target_gradient))
        kernel = kernels[prediction.device.type].run
        kernel(prediction, target, Settings(*settings), "none", upstream=upstream, gradients=gradients)
        return _as_outputs(prediction, gradients)

    def fake_backward(upstream: Tensor, prediction: Tensor, target: Tensor, *arguments: Any) -> list[Tensor]:
        return _as_outputs(prediction, _empty_gradients(prediction, arguments[-2:]))

    def refuse(ctx: Any, *upstream: Tensor) -> None:
        raise RuntimeError(_TWICE)

    implement(op, kernels, run, fake, backward=backward, setup_context=setup_context)
    implement(backward_op, kernels, run_backward, fake_backward, backward=refuse)


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


def _scaled_gradients(
    ctx: Any, images: Sequence[Tensor], upstream: Tensor, wishes: Sequence[bool]
) -> Sequence[Tensor | None]:
    """``ctx.gradients``, by the two ``images``, times the derivative of what became of the value.

    Often that is 1: then nothing is computed. A gradient that was not wished for was not made; one that is no longer
    wished for is not given.
    """
    gradients: Sequence[Tensor | None] = ctx.gradients
    recorded = torch.is_grad_enabled()
    # A gradient that will be asked for again can not be given away: the receiver may write to it.
    ours = not recorded and type(upstream) is Tensor and not _runs_again()
    scale = upstream.view(-1, 1, 1, 1) if upstream.ndim else upstream
    if ours and upstream.is_cpu and not upstream.ndim and upstream.item() == 1.0:
        if images[0].dtype == upstream.dtype:
            return gradients
    elif ours and ctx.rescale is not None:
        for gradient in _chosen(gradients, wishes):
            if gradient is not None:
                ctx.rescale(gradient, scale)
    else:
        gradients = [None if gradient is None else gradient * scale for gradient in _chosen(gradients, wishes)]
    if recorded or images[0].dtype != upstream.dtype:
        finished = (None if gradient is None else _finished(gradient, *images) for gradient in gradients)
        return _chosen(list(finished), wishes)
    return _chosen(gradients, wishes)


def _chosen(gradients: Sequence[Tensor | None], wishes: Sequence[bool]) -> list[Tensor | None]:
    return [gradient if wanted else None for gradient, wanted in zip(gradients, wishes, strict=True)]
