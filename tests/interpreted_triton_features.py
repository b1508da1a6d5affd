"""The Triton kernel of ``feature_distance`` in Triton's interpreter, on the CPU, against its formula.

test_triton_features.py runs this file in a process of its own: Triton decides on import whether it interprets.
"""

import os

import pytest
import torch
from feature_cases import DTYPES, SHAPES, any_shape, assert_agrees, features
from hypothesis import given, settings
from hypothesis import strategies as st
from poisoned import poisoned_memory  # noqa: F401

from twostage_kernels import available_backends

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_triton_features.py instead"


def test_it_is_here() -> None:
    assert "triton" in available_backends("feature_distance")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_formula(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert_agrees("triton", *features(shape, dtype))


@settings(max_examples=25)
@given(shape=any_shape, target=st.sampled_from(DTYPES[:3]), seed=st.integers(0, 2**32 - 1))
def test_any_shape(shape: tuple[int, ...], target: torch.dtype, seed: int) -> None:
    x, y, weights = features(shape, torch.float32, seed)
    assert_agrees("triton", x, y.to(target), weights)


def test_operators_are_registered_well() -> None:
    x, y, weights = features((2, 20, 3, 4), torch.float32)
    ops = torch.ops.twostage_kernels
    torch.library.opcheck(ops.triton_feature_distance.default, (x.requires_grad_(), y, weights))
    upstream = torch.rand(2, 1, 3, 4)
    torch.library.opcheck(ops.triton_feature_distance_backward.default, (upstream, x.detach(), y, weights))
