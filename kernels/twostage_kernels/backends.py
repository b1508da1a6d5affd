"""Which implementation of an op runs. ``auto`` takes the first that is available; a named one must be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from twostage_kernels import native, reference, triton_gpu
from twostage_kernels.settings import Settings, Similarity

Implementation = Callable[..., Any]
BACKEND_NAMES = ("reference", "native", "triton")


@dataclass(frozen=True)
class Backend:
    implementation: Implementation
    devices: tuple[str, ...] | None = None  # types of torch.device; None is every one
    # Why the similarity of such images with such settings is beyond it; None where it is not.
    objection: Callable[[Tensor, Settings], str | None] | None = None
    # Why no device of a type can be used here, of the types that are asked about; None where one can.
    obstacles: Mapping[str, Callable[[], str | None]] = field(default_factory=dict)

    def runs_on(self, kind: str) -> bool:
        if self.devices is not None and kind not in self.devices:
            return False
        return kind not in self.obstacles or self.obstacles[kind]() is None


def _native(
    implementation: Implementation,
    devices: tuple[str, ...] = ("cpu",),
    objection: Callable[[Tensor, Settings], str | None] | None = None,
) -> dict[str, Backend]:
    if native.unavailable is not None:
        return {}
    return {"native": Backend(implementation, devices, objection, {"cuda": native.why_no_cuda})}


def _triton(
    implementation: Implementation, objection: Callable[[Tensor, Settings], str | None] | None = None
) -> dict[str, Backend]:
    obstacles = {"cuda": triton_gpu.why_not_on_cuda, "cpu": triton_gpu.why_not_on_cpu}
    return {"triton": Backend(implementation, ("cuda", "cpu"), objection, obstacles)}


_SIMILARITY: dict[str, Backend] = {
    **_native(native.similarity, ("cpu", "cuda"), native.objection),
    **_triton(triton_gpu.similarity, triton_gpu.objection),
    "reference": Backend(reference.similarity),
}
# For each op its backends, fastest first.
_BACKENDS: dict[str, dict[str, Backend]] = {
    "aw_ssim": _SIMILARITY,
    "ssim": _SIMILARITY,
    "paste_defects": {
        **_native(native.paste_defects, ("cpu", "cuda")),
        **_triton(triton_gpu.paste_defects),
        "reference": Backend(reference.paste_defects),
    },
    "feature_distance": {
        **_native(native.feature_distance),
        **_triton(triton_gpu.feature_distance),
        "reference": Backend(reference.feature_distance),
    },
}
OPS = tuple(_BACKENDS)


def available_backends(op: str, device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names of the backends that can run ``op`` on ``device`` here, fastest first.

    Raises:
        ValueError: ``op`` is not one of ``aw_ssim``, ``ssim``, ``paste_defects``, ``feature_distance``.
        RuntimeError: ``device`` names no device of torch.
    """
    kind = torch.device(device).type
    if op not in _BACKENDS:
        raise ValueError(f"op is {op!r}; accepted: {', '.join(map(repr, _BACKENDS))}")
    return tuple(name for name, backend in _BACKENDS[op].items() if backend.runs_on(kind))


def why_unavailable(op: str, backend: str, device: torch.device | str = "cpu") -> str | None:
    """Why ``backend`` can not run ``op`` on ``device`` here; None where it can."""
    if backend in available_backends(op, device):
        return None
    if backend in _BACKENDS[op]:
        obstacle = _BACKENDS[op][backend].obstacles.get(torch.device(device).type, lambda: None)()
        if obstacle is not None:
            return obstacle
        return f"it has no kernel for {torch.device(device).type}"
    if backend == "native" and native.unavailable is not None:
        return native.unavailable
    return "it has no such kernel"


def choose_backend(op: str, device: torch.device, backend: str) -> Implementation:
    """The implementation of ``op`` named ``backend``, or the fastest for ``auto``.

    Raises:
        ValueError: ``backend`` is no backend's name.
        RuntimeError: ``backend`` is not available here.
    """
    if backend == "auto":
        backend = available_backends(op, device)[0]
    return _named_backend(op, device.type, backend).implementation


def choose_similarity(op: str, images: Tensor, settings: Settings, backend: str) -> Similarity:
    """The implementation of ``op`` named ``backend``, or for ``auto`` the fastest that takes these arguments.

    Raises:
        ValueError: ``backend`` is no backend's name, or does not take these arguments.
        RuntimeError: ``backend`` is not available here.
    """
    kind = "cpu" if images.is_cpu else images.device.type  # the second takes five times as long
    if backend == "auto":
        for candidate in _BACKENDS[op].values():
            if not candidate.runs_on(kind):
                continue
            if candidate.objection is None or candidate.objection(images, settings) is None:
                return candidate.implementation
    chosen = _named_backend(op, kind, backend)
    reason = chosen.objection(images, settings) if chosen.objection is not None else None
    if reason is not None:
        raise ValueError(f"backend {backend!r} of {op} does not take this: {reason}")
    return chosen.implementation


def _named_backend(op: str, kind: str, backend: str) -> Backend:
    chosen = _BACKENDS[op].get(backend)
    if chosen is not None and chosen.runs_on(kind):
        return chosen
    if backend not in BACKEND_NAMES:
        names = ", ".join(map(repr, ("auto", *BACKEND_NAMES)))
        raise ValueError(f"backend is {backend!r}; accepted: {names}")
    raise RuntimeError(
        f"backend {backend!r} of {op} is not available on {kind}: {why_unavailable(op, backend, kind)}; "
        f"available: {', '.join(available_backends(op, kind))}"
    )
