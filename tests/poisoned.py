"""A file of tests that imports ``poisoned_memory`` gets its fresh tensors filled with NaN."""

from collections.abc import Iterator

import pytest
import torch

__all__ = ["poisoned_memory"]


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors hold NaN, so that what a kernel leaves out is seen."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)
