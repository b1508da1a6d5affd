"""SSIM and AW-SSIM: scores and losses with their gradient, call overhead, memory, scaling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from tolerances import tolerance
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from benchmarks.backends import timed_backends
from benchmarks.case import Absent, Case, Contender, Least, Role
from benchmarks.peers import Peer
from benchmarks.peers.similarity import AW_SSIM_PEERS, MS_SSIM_PEERS, SSIM_PEERS
from twostage_kernels import aw_ssim_loss, ms_ssim, ssim_loss

Shape = tuple[int, int, int, int]
Loss = Callable[..., Tensor]

SIZES: dict[str, tuple[Shape, ...]] = {
    "cpu": ((16, 3, 128, 128), (8, 3, 256, 256), (4, 3, 512, 512), (1, 1, 1024, 1024)),
    "cuda": ((128, 3, 128, 128), (16, 3, 512, 512), (5, 5, 1080, 1920)),
}
MEMORY_SIZE: Shape = (4, 3, 512, 512)
OVERHEAD_SIZE: Shape = (1, 1, 16, 16)
# What each scaling case changes, from a middle size.
SCALING: dict[str, dict[str, tuple[Shape, ...]]] = {
    "cpu": {
        "batch": tuple((batch, 3, 128, 128) for batch in (1, 2, 4, 8, 16, 32)),
        "image side": tuple((1, 3, side, side) for side in (32, 64, 128, 256, 512, 1024)),
        "channels": tuple((4, channels, 128, 128) for channels in (1, 2, 4, 8, 16)),
    },
    "cuda": {
        "batch": tuple((batch, 3, 128, 128) for batch in (1, 4, 16, 64, 256, 1024)),
        "image side": tuple((4, 3, side, side) for side in (64, 128, 256, 512, 1024, 2048)),
        "channels": tuple((16, channels, 256, 256) for channels in (1, 2, 4, 8, 16, 32)),
    },
}
_TAPS = 11
_PIXELS_AT_ONCE = 1 << 20
# A separable window is two passes of 11 taps for each of five moments going forward, and for each of three
# derivative maps coming back: the work by its definition, the same for everyone. (The product form can do with
# four moments: of the two squares it asks no more than that of the difference.)
_FORWARD_MULTIPLY_ADDS = 5 * 2 * _TAPS
_BACKWARD_MULTIPLY_ADDS = 3 * 2 * _TAPS


@dataclass(frozen=True)
class Op:
    """A loss to be timed."""

    loss: Loss
    peers: Sequence[Peer]
    backends_of: str
    """The op whose backends it runs on."""
    pixels: float = 1.0
    """Pixels that it works on, in units of those it is given."""


def _ms_ssim_loss(prediction: Tensor, target: Tensor, backend: str) -> Tensor:
    return 1 - ms_ssim(prediction, target, backend=backend)


OPS = {
    "ssim": Op(ssim_loss, SSIM_PEERS, "ssim"),
    "aw_ssim": Op(aw_ssim_loss, AW_SSIM_PEERS, "aw_ssim"),
    # Five levels, each of a quarter of the pixels.
    "ms_ssim": Op(_ms_ssim_loss, MS_SSIM_PEERS, "ssim", pixels=sum(4.0**-level for level in range(5))),
}


class Pair(NamedTuple):
    prediction: Tensor  # [B, C, H, W], wants a gradient
    target: Tensor


Outcome = tuple[Tensor, Tensor | None]
"""Loss and gradient: a plain tuple, because the smallest call is over in the time that two better ones are made."""


def _inputs(shape: Shape, device: str, seed: int) -> Pair:
    """A textured target and a prediction near it, made on the CPU so that every device gets the same."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator)
    prediction = (target + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1)
    return Pair(prediction.to(device).requires_grad_(), target.to(device))


def _forward(loss: Loss, pair: Pair) -> Outcome:
    with torch.no_grad():
        return loss(*pair), None


def _forward_backward(loss: Loss, pair: Pair) -> Outcome:
    value = loss(*pair)
    (gradient,) = torch.autograd.grad(value, pair.prediction)
    return value, gradient


_TASKS = {"forward": _forward, "forward+backward": _forward_backward}


def _truth(op: str, task: str, pair: Pair) -> Outcome:
    """Some planes at a time: the reference keeps dozens of maps for its gradient. A mean of means over equal parts."""
    planes = [image.detach().flatten(0, 1).unsqueeze(1) for image in pair]
    count, _, height, width = planes[0].shape
    loss, gradients = torch.zeros((), dtype=torch.float64), []
    for x, y in zip(*(image.split(max(1, _PIXELS_AT_ONCE // (height * width))) for image in planes), strict=True):
        part = Pair(x.double().requires_grad_(), y.double())
        value, gradient = _TASKS[task](partial(OPS[op].loss, backend="reference"), part)
        share = len(x) / count
        loss += share * value.detach().cpu()
        if gradient is not None:
            gradients.append(share * gradient.cpu())
    return loss, (torch.cat(gradients).view(pair.target.shape) if gradients else None)


def _judge(result: Outcome, truth: Outcome, role: Role) -> float:
    names = ("similarity value", "similarity gradient") if role == "ours" else ("same work", "same work")
    value_bound, gradient_bound = (tolerance(name, torch.float32) for name in names)
    (loss, gradient), (true_loss, true_gradient) = result, truth
    worst = abs(float(loss.detach()) - float(true_loss)) / value_bound
    if true_gradient is None:
        return worst
    assert gradient is not None
    # The gradient of a sum instead of a mean has the scale of the scores, whatever the number of windows.
    batch, channels, height, width = true_gradient.shape
    windows = batch * channels * (height - _TAPS + 1) * (width - _TAPS + 1)
    scaled = true_gradient * windows
    difference = float((gradient.cpu().double() * windows - scaled).abs().max())
    return max(worst, difference / (gradient_bound * max(1.0, float(scaled.abs().max()))))


def _contenders(op: str, task: str, device: str, *, with_peers: bool) -> Sequence[Contender | Absent]:
    run = _TASKS[task]
    ours = [
        Contender(name, "ours", partial(run, partial(OPS[op].loss, backend=name)))
        for name in timed_backends(OPS[op].backends_of, device)
    ]

    def adapt(score: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Pair], Outcome]:
        return partial(run, lambda prediction, target: 1 - score(prediction, target))

    return [*ours, *(peer.load(device, adapt) for peer in OPS[op].peers if with_peers)]


def _with_a_short_call(contenders: Callable[[], Sequence[Contender | Absent]]) -> Sequence[Contender | Absent]:
    """The same and, to tell a slow call from a slow machine, what torch takes for hardly anything with a gradient."""
    return [*contenders(), Contender("torch's mse_loss", "yardstick", partial(_forward_backward, F.mse_loss))]


def _least(op: str, task: str, pair: Pair) -> Least:
    pixels, backward = pair.target.numel(), task == "forward+backward"
    multiply_adds = _FORWARD_MULTIPLY_ADDS + (_BACKWARD_MULTIPLY_ADDS if backward else 0)
    return Least((3 if backward else 2) * 4 * pixels, round(multiply_adds * pixels * OPS[op].pixels))


def case(op: str, task: str, shape: Shape, device: str, *groups: str, label: str | None = None) -> Case:
    """``task`` is forward or forward+backward; ``label`` is what it is called, where that says more."""
    return Case(
        op=op,
        task=label or task,
        shape=shape,
        device=device,
        inputs=partial(_inputs, shape, device),
        contenders=partial(_contenders, op, task, device, with_peers="scaling" not in groups),
        truth=partial(_truth, op, task),
        judge=_judge,
        least=partial(_least, op, task),
        groups=frozenset(groups),
    )


def cases(device: str) -> list[Case]:
    found: list[Case] = []
    for op in ("ssim", "aw_ssim"):
        for shape in SIZES[device]:
            for task in _TASKS:
                memory = ("memory",) if shape == MEMORY_SIZE else ()
                found.append(case(op, task, shape, device, "kernel", *memory))
        if MEMORY_SIZE not in SIZES[device]:
            found.append(case(op, "forward+backward", MEMORY_SIZE, device, "kernel", "memory"))
        overhead = case(op, "forward+backward", OVERHEAD_SIZE, device, "kernel", label="call overhead")
        # What a call costs, and not what it costs to find the caches full of something else.
        contenders = partial(_with_a_short_call, overhead.contenders)
        found.append(replace(overhead, contenders=contenders, rotates=False, shortest_sample=0.02))
    found.append(case("ms_ssim", "forward+backward", MEMORY_SIZE, device, "kernel", "memory"))
    for axis, shapes in SCALING[device].items():
        label = f"scaling over {axis}"
        found += [case("aw_ssim", "forward+backward", shape, device, "scaling", label=label) for shape in shapes]
    return found


def small_cases(device: str) -> list[Case]:
    """Shapes that leave kernels' tiles half empty, for checks under a memory checker."""
    shapes: tuple[Shape, ...] = ((2, 3, 40, 75), (1, 1, 11, 130))
    return [case(op, task, shape, device) for op in ("ssim", "aw_ssim") for task in _TASKS for shape in shapes]
