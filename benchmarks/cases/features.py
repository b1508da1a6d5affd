"""The end of LPIPS: distances between features, with their gradient."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from tolerances import tolerance
from torch import Tensor

from benchmarks.backends import timed_backends
from benchmarks.case import Absent, Case, Contender, Least, Role
from benchmarks.peers.features import FEATURE_PEERS
from twostage_kernels import feature_distance

Shape = tuple[int, int, int, int]
SIZES: dict[str, tuple[Shape, ...]] = {"cpu": ((16, 64, 31, 31),), "cuda": ((128, 64, 31, 31), (128, 192, 15, 15))}
"""Of AlexNet's first layers, for 16 and for 128 patches of 128 x 128."""


class Features(NamedTuple):
    prediction: Tensor  # [B, C, H, W], wants a gradient
    target: Tensor
    weights: Tensor  # [C]
    upstream: Tensor  # [B, 1, H, W]


class Outcome(NamedTuple):
    distance: Tensor  # [B, 1, H, W]
    gradient: Tensor  # [B, C, H, W]


def _inputs(shape: Shape, device: str, seed: int) -> Features:
    """Rectified, and never all 0, where plain operations have no derivative; laid out as convolutions leave them."""
    generator = torch.Generator().manual_seed(seed)
    batch, channels, height, width = shape
    target = torch.randn(shape, generator=generator)
    prediction = target + 0.5 * torch.randn(shape, generator=generator)
    x, y = (
        part.relu().to(device).contiguous(memory_format=torch.channels_last) + 1e-3 for part in (prediction, target)
    )
    weights = torch.rand(channels, generator=generator)
    upstream = torch.rand(batch, 1, height, width, generator=generator)
    return Features(x.requires_grad_(), y, weights.to(device), upstream.to(device))


def _measure(function: Callable[[Tensor, Tensor, Tensor], Tensor], given: Features) -> Outcome:
    distance = function(given.prediction, given.target, given.weights)
    (gradient,) = torch.autograd.grad(distance, given.prediction, given.upstream)
    return Outcome(distance.detach(), gradient)


def _truth(given: Features) -> Outcome:
    double = Features(*(tensor.detach().double().cpu() for tensor in given))
    double.prediction.requires_grad_()
    return _measure(partial(feature_distance, backend="reference"), double)


def _judge(result: Outcome, truth: Outcome, role: Role) -> float:
    names = ("feature distance", "feature gradient") if role == "ours" else ("same work", "same work")
    errors = (
        float((own.cpu().double() - true).abs().max() / true.abs().max()) / tolerance(name, torch.float32)
        for name, own, true in zip(names, result, truth, strict=True)
    )
    return max(errors)


def _contenders(device: str) -> Sequence[Contender | Absent]:
    ours = [
        Contender(name, "ours", partial(_measure, partial(feature_distance, backend=name)))
        for name in timed_backends("feature_distance", device)
    ]

    def adapt(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Features], Outcome]:
        return partial(_measure, function)

    return [*ours, *(peer.load(device, adapt) for peer in FEATURE_PEERS)]


def _case(shape: Shape, device: str, *groups: str) -> Case:
    return Case(
        op="feature_distance",
        task="forward+backward",
        shape=shape,
        device=device,
        inputs=partial(_inputs, shape, device),
        contenders=partial(_contenders, device),
        truth=_truth,
        judge=_judge,
        least=lambda given: Least(3 * 4 * given.target.numel(), 0),
        groups=frozenset(groups),
    )


def cases(device: str) -> list[Case]:
    return [_case(shape, device, "kernel", "memory") for shape in SIZES[device]]


def small_cases(device: str) -> list[Case]:
    """Positions and channels that leave tiles half empty."""
    return [_case(shape, device) for shape in ((1, 70, 3, 5), (2, 3, 1, 1))]
