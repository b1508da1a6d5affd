"""Where the package's operators live in torch."""

import torch

_NAMESPACE = "twostage_kernels"
LIBRARY = torch.library.Library(_NAMESPACE, "DEF")


def define(name: str, schema: str) -> torch._ops.OpOverload:
    """A new operator ``twostage_kernels::name``, which has no implementation yet."""
    LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    op: torch._ops.OpOverload = getattr(getattr(torch.ops, _NAMESPACE), name).default
    return op
