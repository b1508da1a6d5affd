"""The similarity ops refuse bad input by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from twostage_kernels import available_backends, aw_ssim, aw_ssim_loss, ssim, ssim_loss

SIMILARITY_OPS: dict[str, Callable[..., Tensor]] = {
    "aw_ssim": aw_ssim,
    "ssim": ssim,
    "aw_ssim_loss": aw_ssim_loss,
    "ssim_loss": ssim_loss,
}
GOOD = torch.full((2, 1, 12, 13), 0.5)
WRONG_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"prediction": [[1.0]]}, TypeError, "prediction is a list; accepted: a torch.Tensor"),
    ({"target": None}, TypeError, "target is a NoneType; accepted: a torch.Tensor"),
    ({"prediction": GOOD.to(torch.uint8)}, TypeError, "prediction has dtype torch.uint8; accepted: float16"),
    ({"target": GOOD.to(torch.complex64)}, TypeError, "target has dtype torch.complex64; accepted: float16"),
    ({"target": GOOD.double()}, TypeError, "prediction has dtype torch.float32 and target torch.float64"),
    ({"prediction": GOOD[0]}, ValueError, r"prediction has shape \(1, 12, 13\); accepted: \[B, C, H, W\]"),
    (
        {"prediction": GOOD[:, :0], "target": GOOD[:, :0]},
        ValueError,
        r"prediction has shape \(2, 0, 12, 13\); accepted: \[B, C, H, W\] with at least one pixel",
    ),
    ({"target": GOOD[:1]}, ValueError, r"prediction has shape \(2, 1, 12, 13\) and target \(1, 1, 12, 13\)"),
    ({"target": GOOD.to("meta")}, ValueError, "prediction is on cpu and target on meta; accepted: the same device"),
    ({"sigma": 0.0}, ValueError, "sigma is 0.0; accepted: a finite number above 0"),
    ({"sigma": -1.5}, ValueError, "sigma is -1.5; accepted"),
    ({"sigma": float("nan")}, ValueError, "sigma is nan; accepted"),
    ({"sigma": float("inf")}, ValueError, "sigma is inf; accepted"),
    ({"sigma": "wide"}, TypeError, "sigma is a str; accepted: a number"),
    ({"sigma": torch.tensor([1.0, 0.0])}, ValueError, r"sigma is \[1.0, 0.0\]; accepted: finite values above 0"),
    ({"sigma": torch.tensor([float("inf"), 1.0])}, ValueError, r"sigma is \[inf, 1.0\]; accepted"),
    ({"sigma": torch.tensor(float("nan"))}, ValueError, "sigma is nan; accepted"),
    ({"sigma": torch.ones(3)}, ValueError, r"sigma has shape \(3,\); accepted: a number, a 0-d tensor or \[2\]"),
    ({"sigma": torch.ones(2, 1)}, ValueError, r"sigma has shape \(2, 1\); accepted"),
    ({"sigma": torch.ones(2, dtype=torch.int64)}, TypeError, "sigma has dtype torch.int64; accepted: a floating"),
    ({"sigma": torch.ones(2, device="meta")}, ValueError, "sigma is on meta and the images on cpu; accepted"),
    ({"weights": (0.5, 0.5)}, ValueError, r"weights is \(0.5, 0.5\); accepted: three numbers"),
    ({"weights": 1.0}, ValueError, "weights is 1.0; accepted: three numbers"),
    ({"weights": (1.0, "a", 0.0)}, ValueError, "weights is .*; accepted: three numbers"),
    ({"weights": (1.0, float("nan"), 0.0)}, ValueError, "weights is .*nan.*; accepted: three finite numbers"),
    ({"window_size": 10}, ValueError, "window_size is 10; accepted: an odd integer of at least 1"),
    ({"window_size": -1}, ValueError, "window_size is -1; accepted"),
    ({"window_size": 11.0}, ValueError, "window_size is 11.0; accepted"),
    ({"window_size": 13}, ValueError, "window_size is 13 and the images are 12x13; accepted"),
    ({"data_range": 0.0}, ValueError, "data_range is 0.0; accepted: a finite number above 0"),
    ({"data_range": None}, TypeError, "data_range is a NoneType; accepted: a number"),
    ({"k1": 0.0}, ValueError, "k1 is 0.0; accepted"),
    ({"k1": "a"}, TypeError, "k1 is a str; accepted"),
    ({"k2": -0.03}, ValueError, "k2 is -0.03; accepted"),
    ({"k2": GOOD}, TypeError, "k2 is a Tensor; accepted: a number"),
    ({"mask": [1.0]}, TypeError, "mask is a list; accepted: a torch.Tensor or None"),
    ({"mask": GOOD.long()}, TypeError, "mask has dtype torch.int64; accepted: bool or a floating-point dtype"),
    ({"mask": GOOD[:1]}, ValueError, r"mask has shape \(1, 1, 12, 13\); accepted: \[2, 1, 12, 13\]"),
    ({"mask": GOOD.to("meta")}, ValueError, "mask is on meta and the images on cpu; accepted: the same device"),
    ({"mask": -GOOD}, ValueError, "mask has values below 0 or not finite; accepted: finite values of at least 0"),
    ({"l1_weight": 1.5}, ValueError, "l1_weight is 1.5; accepted: 0 to 1"),
    ({"l1_weight": "a"}, TypeError, "l1_weight is a str; accepted: a number"),
    ({"padding": "reflect"}, ValueError, "padding is 'reflect'; accepted: 'valid', 'same'"),
    ({"reduction": "sum"}, ValueError, "reduction is 'sum'; accepted: 'mean', 'sample', 'none'"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'; accepted: 'auto', 'reference', 'native', 'triton'"),
]


@pytest.mark.parametrize(
    ("op", "arguments", "error", "message"),
    [
        pytest.param(op, arguments, error, message, id=f"{op}-{message[:50]}")
        for op in SIMILARITY_OPS
        for arguments, error, message in WRONG_ARGUMENTS
        if not ("weights" in arguments and op.startswith("ssim"))
        and not ("reduction" in arguments and "loss" in op)
        and not ("l1_weight" in arguments and "loss" not in op)
    ],
)
def test_a_wrong_argument_is_named(op: str, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SIMILARITY_OPS[op](**{"prediction": GOOD, "target": GOOD, **arguments})


def missing_backend(op: str) -> str:
    missing = [name for name in ("triton", "native") if name not in available_backends(op)]
    if not missing:
        pytest.skip("every backend is available here")
    return missing[0]


@pytest.mark.parametrize("op", SIMILARITY_OPS)
def test_a_backend_that_is_not_here_is_an_error(op: str) -> None:
    name = missing_backend(op.removesuffix("_loss"))
    with pytest.raises(RuntimeError, match=f"backend '{name}' of {op.removesuffix('_loss')} is not available on cpu"):
        SIMILARITY_OPS[op](GOOD, GOOD, backend=name)
