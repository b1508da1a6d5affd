"""The compiled CUDA kernels, or the reason why they can not run. Importing this touches no GPU."""

from functools import cache
from importlib import import_module
from types import ModuleType

import torch

OLDEST_CAPABILITY = (7, 5)

cuda_extension: ModuleType | None = None
_unavailable: str | None = None
try:
    cuda_extension = import_module("twostage_kernels._cuda_extension")
except ModuleNotFoundError:
    _unavailable = "this installation was built without its CUDA kernels: there was no nvcc, or they were not wanted"
except ImportError as error:
    _unavailable = f"its CUDA kernels do not load: {error}"
# Smallest and largest.
WINDOW_SIZES: tuple[int, int] = cuda_extension.window_sizes if cuda_extension is not None else (0, 0)


@cache
def _obstacle() -> str | None:
    if _unavailable is not None:
        return _unavailable
    if torch.version.hip is not None:
        return "its CUDA kernels are for NVIDIA's GPUs, and this torch is for AMD's"
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if cuda_extension is not None and cuda_extension.devices() == 0:
        return "the driver is older than the CUDA toolkit that its kernels were built with"
    reasons = [why_not_on(index) for index in range(torch.cuda.device_count())]
    return None if None in reasons else reasons[0]


@cache
def _obstacle_on(index: int) -> str | None:
    capability = torch.cuda.get_device_capability(index)
    if capability >= OLDEST_CAPABILITY:
        return None
    names = ["compute capability {}.{}".format(*version) for version in (capability, OLDEST_CAPABILITY)]
    return f"{torch.cuda.get_device_name(index)} has {names[0]}; its CUDA kernels need {names[1]}"


def why_no_cuda() -> str | None:
    """Why the CUDA kernels can run on no device here; None where they can."""
    return _obstacle()


def why_not_on(index: int) -> str | None:
    """Why the CUDA kernels can not run on the GPU of this number; None where they can."""
    return _obstacle_on(index)


# torch.compile takes what they return for a constant, as torch.compiler.assume_constant_result would have it; but that
# imports the compiler, which takes a second.
for _probe in (why_no_cuda, why_not_on):
    vars(_probe)["_dynamo_marked_constant"] = True


def architectures() -> str:
    """What the CUDA kernels were compiled for; empty without them."""
    return str(cuda_extension.architectures) if cuda_extension else ""
