"""Whether a call of an operator can do without torch's dispatcher, which takes longer than a small image."""

from collections.abc import Callable

import torch
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)
# By names of their own: each dot costs a small image's call something.
_outlived_its_transform: Callable[[Tensor], bool] = torch._C._functorch.is_dead_tensor_wrapper  # type: ignore[attr-defined]
_transforms_are_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack


def is_eager(*arguments: Tensor | None) -> bool:
    """Whether nobody watches: no compiler, mode or transform, and no tensor that is more than one."""
    if torch.compiler.is_compiling() or _dispatch_modes() or _transforms_are_active():
        return False
    for tensor in arguments:
        if tensor is not None and (type(tensor) not in _PLAIN or _outlived_its_transform(tensor)):
            return False
    return True
