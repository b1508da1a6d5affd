"""Which implementation of an op runs. ``auto`` takes the first that is available; a named one must be."""

from collections.abc import Callable
from typing import Any

import torch

from twostage_kernels import reference

Implementation = Callable[..., Any]

# For each op its backends, fastest first.
_IMPLEMENTATIONS: dict[str, dict[str, Implementation]] = {
    "aw_ssim": {"reference": reference.aw_ssim_map},
    "ssim": {"reference": reference.ssim_map},
    "paste_defects": {"reference": reference.paste_defects},
}
BACKEND_NAMES = ("reference", "native", "triton")


def available_backends(op: str, device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names of the backends that can run ``op`` on ``device`` here, fastest first.

    Raises:
        ValueError: ``op`` is not one of ``aw_ssim``, ``ssim``, ``paste_defects``.
        RuntimeError: ``device`` names no device of torch.
    """
    torch.device(device)
    if op not in _IMPLEMENTATIONS:
        raise ValueError(f"op is {op!r}; accepted: {', '.join(map(repr, _IMPLEMENTATIONS))}")
    return tuple(_IMPLEMENTATIONS[op])


def choose_backend(op: str, device: torch.device, backend: str) -> Implementation:
    """The implementation of ``op`` named ``backend``, or the fastest for ``auto``.

    Raises:
        ValueError: ``backend`` is no backend's name.
        RuntimeError: ``backend`` is not available here.
    """
    available = available_backends(op, device)
    if backend == "auto":
        backend = available[0]
    if backend not in BACKEND_NAMES:
        names = ", ".join(map(repr, ("auto", *BACKEND_NAMES)))
        raise ValueError(f"backend is {backend!r}; accepted: {names}")
    if backend not in available:
        raise RuntimeError(
            f"backend {backend!r} of {op} is not available on {device}; available: {', '.join(available)}"
        )
    return _IMPLEMENTATIONS[op][backend]
