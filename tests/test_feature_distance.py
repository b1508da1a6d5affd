"""``feature_distance`` on every backend that is here, against its formula written out in float64."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from feature_cases import DTYPES, SHAPES, any_shape, assert_agrees, features, truth
from hypothesis import given
from hypothesis import strategies as st
from poisoned import poisoned_memory  # noqa: F401
from tolerances import tolerance
from torch import Tensor
from torch.nn import functional

from twostage_kernels import available_backends, feature_distance, native

BACKENDS = available_backends("feature_distance")
KERNELS = [f"native {name}" for name in native.instruction_sets()] + ["reference"]


@pytest.fixture(params=KERNELS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend, the native one on each instruction set."""
    name, _, instructions = request.param.partition(" ")
    chosen = (
        native.forced_instruction_set(native.instruction_sets().index(instructions)) if instructions else nullcontext()
    )
    with chosen:
        yield name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_formula(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert_agrees(backend, *features(shape, dtype))


@given(shape=any_shape, prediction=st.sampled_from(DTYPES[:3]), target=st.sampled_from(DTYPES[:3]), seed=st.integers(0))
def test_any_shape_and_any_two_dtypes(
    shape: tuple[int, ...], prediction: torch.dtype, target: torch.dtype, seed: int
) -> None:
    x, y, weights = features(shape, torch.float32, seed % 2**32)
    for name in BACKENDS:
        assert_agrees(name, x.to(prediction), y.to(target), weights)


@pytest.mark.parametrize(
    "laid_out",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: torch.stack([x, x], -1)[..., 1],
        lambda x: torch.cat([x, x])[: len(x)].transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: x[:, :, :1, :1].expand(x.shape),
    ],
    ids=["channels_last", "every second element", "transposed", "expanded"],
)
def test_any_strides(backend: str, laid_out: Callable[[Tensor], Tensor]) -> None:
    x, y, weights = features((2, 20, 6, 5), torch.float32)
    assert_agrees(backend, laid_out(x), y, weights)
    assert_agrees(backend, x, laid_out(y), weights)
    assert_agrees(backend, x, y, torch.stack([weights, weights], 1)[:, 1])


def test_equals_torchs_normalise(backend: str) -> None:
    x, y, weights = features((2, 48, 5, 6), torch.float64)
    x, y = x + 0.1, y + 0.1
    difference = functional.normalize(x, eps=0) - functional.normalize(y, eps=0)
    expected = functional.conv2d(difference.square(), weights.double().view(1, -1, 1, 1))
    distance = feature_distance(x, y, weights.view(1, -1, 1, 1), backend=backend)
    torch.testing.assert_close(distance, expected, rtol=0, atol=1e-9)  # the epsilon of 1e-10 in a squared length


def test_equal_and_absent_features(backend: str) -> None:
    x, _, weights = features((1, 33, 4, 4), torch.float32)
    assert not feature_distance(x, x.clone(), weights, backend=backend).any()
    nothing = torch.zeros_like(x).requires_grad_()
    assert not feature_distance(nothing, nothing.detach(), weights, backend=backend).any()
    (gradient,) = torch.autograd.grad(feature_distance(nothing, x, weights, backend=backend).sum(), nothing)
    assert bool(gradient.isfinite().all())
    assert bool(gradient.any())


def test_unit_features_stay_as_they_are(backend: str) -> None:
    x, y, weights = features((2, 64, 5, 5), torch.float32)
    unit = y / (y.square().sum(1, keepdim=True) + 1e-10).sqrt()
    once, twice = (feature_distance(x, other, weights, backend=backend) for other in (y, unit))
    torch.testing.assert_close(once, twice, rtol=0, atol=tolerance("feature distance", torch.float32))


def test_what_is_not_a_number_stays_where_it_is(backend: str) -> None:
    x, y, weights = features((1, 20, 3, 3), torch.float32)
    x[0, 7, 1, 1] = torch.nan
    x.requires_grad_()
    distance = feature_distance(x, y, weights, backend=backend)
    (gradient,) = torch.autograd.grad(distance.sum(), x)
    spoilt = torch.zeros(3, 3, dtype=torch.bool)
    spoilt[1, 1] = True
    assert torch.equal(distance[0, 0].isnan(), spoilt)
    assert torch.equal(gradient[0].isnan().any(0), spoilt)


def test_autocast_lowers_nothing(backend: str) -> None:
    x, y, weights = features((2, 32, 4, 4), torch.float32)
    plain = feature_distance(x, y, weights, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(feature_distance(x, y, weights, backend=backend), plain)


def test_the_gradient_is_the_finite_difference(backend: str) -> None:
    x, y, weights = features((2, 5, 3, 4), torch.float64)
    x = (x + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: feature_distance(p, y, weights, backend=backend), x)


def test_the_reference_can_be_differentiated_again() -> None:
    x, y, weights = features((1, 4, 2, 2), torch.float64)
    x = (x + 0.1).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda p: feature_distance(p, y, weights, backend="reference"), x)


def test_target_and_weights_are_constants(backend: str) -> None:
    x, y, weights = (tensor.requires_grad_() for tensor in features((1, 6, 3, 3), torch.float32))
    feature_distance(x, y, weights, backend=backend).sum().backward()
    assert x.grad is not None
    assert y.grad is None


# --- as torch sees it ----------------------------------------------------------------------------------------------

with_native = pytest.mark.skipif(native.unavailable is not None, reason=f"no native backend: {native.unavailable}")


@with_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_are_registered_well(dtype: torch.dtype) -> None:
    x, y, weights = features((2, 20, 3, 4), dtype)
    ops = torch.ops.twostage_kernels
    torch.library.opcheck(ops.native_feature_distance.default, (x.requires_grad_(), y, weights))
    upstream = torch.rand(2, 1, 3, 4)
    torch.library.opcheck(ops.native_feature_distance_backward.default, (upstream, x.detach(), y, weights))


@with_native
def test_compiles_whole_and_gives_the_same_bits() -> None:
    x, y, weights = features((2, 20, 3, 4), torch.float32)

    def step(prediction: Tensor) -> Tensor:
        return 2 * feature_distance(prediction, y, weights).mean()

    compiled: Any = torch.compile(step, fullgraph=True, backend="aot_eager")
    results = []
    for function in (step, compiled):
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        value.backward()
        assert leaf.grad is not None
        results.append((value.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@with_native
def test_the_same_bits_on_any_number_of_threads() -> None:
    x, y, weights = features((5, 64, 40, 31), torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            distance = feature_distance(leaf, y, weights, backend="native")
            distance.mean().backward()
            assert leaf.grad is not None
            results.append((distance.detach(), leaf.grad))
    finally:
        torch.set_num_threads(before)
    for distance, gradient in results[1:]:
        assert torch.equal(distance, results[0][0])
        assert torch.equal(gradient, results[0][1])


@with_native
@pytest.mark.parametrize("dispatched", [False, True])
def test_a_second_derivative_is_refused(dispatched: bool) -> None:
    x, y, weights = features((1, 6, 3, 3), torch.float32)
    x.requires_grad_()
    operator = torch.ops.twostage_kernels.native_feature_distance
    distance = operator(x, y, weights) if dispatched else feature_distance(x, y, weights, backend="native")
    (gradient,) = torch.autograd.grad(distance.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="only once by this backend"):
        torch.autograd.grad(gradient.square().sum(), x)


def test_more_threads_than_work() -> None:
    x, y, weights = features((1, 3, 1, 2), torch.float32)
    for name in BACKENDS:
        distance = feature_distance(x, y, weights, backend=name)
        expected, _, _ = truth(x, y, weights, torch.ones(1, 1, 1, 2))
        torch.testing.assert_close(distance.double(), expected, rtol=0, atol=1e-6)


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"prediction": [1.0]}, TypeError, "prediction is a list; accepted: a torch.Tensor"),
        (
            {"prediction": torch.zeros(4, 3, 3)},
            ValueError,
            r"prediction has shape \(4, 3, 3\); accepted: \[B, C, H, W\]",
        ),
        (
            {"prediction": torch.zeros(1, 4, 3, 3).int()},
            TypeError,
            "prediction has dtype torch.int32; accepted: float16",
        ),
        ({"target": torch.zeros(1, 4, 3, 2)}, ValueError, r"target \(1, 4, 3, 2\); accepted: equal shapes"),
        ({"target": torch.zeros(1, 4, 3, 3).double()}, TypeError, "float64 for both or neither"),
        ({"target": torch.zeros(1, 4, 3, 3, device="meta")}, ValueError, "prediction is on cpu and target on meta"),
        ({"weights": 2.0}, TypeError, "weights is a float; accepted: a torch.Tensor"),
        ({"weights": torch.ones(5)}, ValueError, r"weights has shape \(5,\); accepted: \[4\] or \[1, 4, 1, 1\]"),
        (
            {"weights": torch.ones(4).long()},
            TypeError,
            "weights has dtype torch.int64; accepted: a floating-point dtype",
        ),
        ({"weights": torch.ones(4, device="meta")}, ValueError, "weights is on meta and the features on cpu"),
        ({"backend": "cudnn"}, ValueError, "backend is 'cudnn'; accepted: 'auto', 'reference'"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"prediction": torch.zeros(1, 4, 3, 3), "target": torch.zeros(1, 4, 3, 3), "weights": torch.ones(4)}
    with pytest.raises(error, match=message):
        feature_distance(**{**arguments, **changed})
