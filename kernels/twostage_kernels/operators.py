"""Where the package's operators live in torch."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

_NAMESPACE = "twostage_kernels"
_OPERATORS = torch.library.Library(_NAMESPACE, "DEF")


def define(name: str, schema: str) -> torch._ops.OpOverload:
    """A new operator ``twostage_kernels::name``, which has no implementation yet."""
    _OPERATORS.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    op: torch._ops.OpOverload = getattr(getattr(torch.ops, _NAMESPACE), name).default
    return op


def implement(
    op: torch._ops.OpOverload,
    devices: Iterable[str],
    run: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> None:
    """What ``op`` does on types of torch.device ("cpu", "cuda") and with tensors without values, and its derivative."""
    for device in devices:
        _OPERATORS.impl(op, run, device.upper())
    torch.library.register_fake(op, fake, lib=_OPERATORS)
    if backward is not None:
        torch.library.register_autograd(op, backward, setup_context=setup_context, lib=_OPERATORS)
