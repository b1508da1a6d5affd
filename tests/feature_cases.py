"""Features to measure the distance of, and the truth about them in float64, by formulas of their own."""

import torch
from hypothesis import strategies as st
from tolerances import HALF_ROUNDING, tolerance
from torch import Tensor

from twostage_kernels import feature_distance

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Fewer channels than a vector has lanes, as many, some vectors and a rest, more than a GPU's program holds at a time.
SHAPES = [(2, 3, 4, 5), (1, 16, 7, 7), (2, 70, 3, 2), (1, 1, 1, 1), (3, 64, 1, 9), (1, 600, 2, 2), (1, 384, 13, 11)]
any_shape = st.tuples(st.integers(0, 3), st.integers(1, 90), st.integers(1, 9), st.integers(1, 9))


def features(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, target and weights: rectified, some positions zero throughout, lengths between 0.01 and 100."""
    generator = torch.Generator().manual_seed(seed)
    batch, channels, height, width = shape
    pair = []
    for _ in range(2):
        values = torch.randn(shape, generator=generator, dtype=torch.float64).relu_()
        places = torch.rand(batch, 1, height, width, generator=generator, dtype=torch.float64)
        pair.append((values * torch.where(places < 0.1, 0.0, 10 ** (4 * places - 2))).to(dtype))
    return pair[0], pair[1], torch.rand(channels, generator=generator)


def truth(prediction: Tensor, target: Tensor, weights: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In float64, written out: the distance, the prediction's gradient, and how large that can be at a position."""
    x, y, w = prediction.detach().double(), target.double(), weights.double().view(1, -1, 1, 1)
    length = (x.square().sum(1, keepdim=True) + 1e-10).sqrt()
    unit = x / length
    difference = unit - y / (y.square().sum(1, keepdim=True) + 1e-10).sqrt()
    by_unit = 2 * w * difference * upstream.double()
    gradient = (by_unit - unit * (by_unit * unit).sum(1, keepdim=True)) / length
    steepest = 2 * w.abs().max() * upstream.double().abs() / length
    return (w * difference**2).sum(1, keepdim=True), gradient, steepest


def assert_agrees(backend: str, prediction: Tensor, target: Tensor, weights: Tensor) -> None:
    number = torch.float64 if prediction.dtype == torch.float64 else torch.float32
    prediction = prediction.detach().requires_grad_()
    batch, _, height, width = prediction.shape
    upstream = torch.linspace(-0.1, 0.2, batch * height * width, dtype=number).view(batch, 1, height, width)
    upstream = upstream.to(prediction.device)
    distance = feature_distance(prediction, target, weights, backend=backend)
    (gradient,) = torch.autograd.grad(distance, prediction, upstream)
    expected, slope, steepest = truth(prediction, target, weights, upstream)
    assert distance.dtype == number
    assert distance.shape == upstream.shape
    assert gradient.dtype == prediction.dtype
    assert gradient.shape == prediction.shape
    if batch == 0:
        return
    heaviest = float(weights.abs().max())
    error = (distance.detach().double() - expected).abs().max()
    assert float(error) <= tolerance("feature distance", number) * heaviest
    allowed = tolerance("feature gradient", number) * steepest
    if prediction.dtype in HALF_ROUNDING:
        smallest = torch.finfo(prediction.dtype).smallest_normal * torch.finfo(prediction.dtype).eps
        allowed = allowed + HALF_ROUNDING[prediction.dtype] * slope.abs() + smallest
    assert bool(((gradient.double() - slope).abs() <= allowed).all())
