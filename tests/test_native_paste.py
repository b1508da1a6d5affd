"""The C++ ``paste_defects`` against the reference with every option, and its operators as torch sees them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paste_cases import any_batch, assert_pasted, big_batch, operands
from poisoned import poisoned_memory  # noqa: F401
from torch import Tensor

from twostage_kernels import native, paste_defects

if native.unavailable:
    pytest.skip(f"no native backend: {native.unavailable}", allow_module_level=True)


@pytest.mark.parametrize("instruction_set", range(len(native.instruction_sets())), ids=native.instruction_sets())
@given(seed=st.integers(0, 2**32))
def test_agrees_with_the_reference(instruction_set: int, seed: int) -> None:
    arguments = any_batch(seed)
    target = arguments["target"]
    before = target.clone(memory_format=torch.preserve_format)
    with native.forced_instruction_set(instruction_set):
        images, opacity = paste_defects(**arguments, backend="native")
        copy = before.clone(memory_format=torch.preserve_format)
        in_place = paste_defects(**{**arguments, "target": copy}, out=copy, backend="native")
    assert torch.equal(target, before)
    assert images.stride() == target.stride()
    assert_pasted(arguments, images, opacity)
    assert torch.equal(in_place[0], images)
    assert torch.equal(in_place[1], opacity)


def test_numbers_too_large_for_their_dtype_are_refused_by_name() -> None:
    arguments = big_batch()
    vertices = arguments["vertices"].double()
    vertices[3, 0, 0] = 1e300  # infinite in float32
    with pytest.raises(ValueError, match=r"vertices of polygon 3 is .*inf.*; accepted: finite numbers"):
        paste_defects(**{**arguments, "vertices": vertices}, backend="native")


def test_long_edges_are_cut_where_the_reference_cuts_them() -> None:
    """Coordinates at which a float32 is rounded to more than a pixel."""
    generator = torch.Generator().manual_seed(1)
    arguments = big_batch()
    for power in (6, 8, 9, 20, 38):
        vertices = (torch.rand(arguments["vertices"].shape, generator=generator) - 0.5) * 10.0**power
        vertices[:, ::2] = 64 * torch.rand(vertices[:, ::2].shape, generator=generator)
        hard = {**arguments, "vertices": vertices, "blur_sigma": torch.zeros(len(vertices))}
        (_, got), (_, expected) = (paste_defects(**hard, backend=name) for name in ("native", "reference"))
        assert torch.equal(got, expected)


# --- operators -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 4, 7, 11])
def test_operators_are_registered_well(seed: int) -> None:
    arguments = operands(any_batch(seed))
    torch.library.opcheck(torch.ops.twostage_kernels.native_paste_defects.default, arguments)
    torch.library.opcheck(torch.ops.twostage_kernels.native_paste_defects_.default, arguments)


@pytest.mark.parametrize("out", ["new", "target", "other"])
def test_compiled_is_eager(out: str) -> None:
    def pasted(arguments: dict[str, Any], other: Tensor) -> tuple[Tensor, Tensor]:
        into = {"new": None, "target": arguments["target"], "other": other}[out]
        images, opacity = paste_defects(**arguments, out=into, backend="native")
        return 2 * images, opacity + 1

    torch.compiler.reset()
    compiled = torch.compile(pasted, fullgraph=True, backend="aot_eager")
    runs = []
    for function in (pasted, compiled):
        arguments = big_batch()
        other = torch.zeros_like(arguments["target"])
        runs.append((*function(arguments, other), arguments["target"], other))
    for eager, traced in zip(*runs, strict=True):
        assert torch.equal(eager, traced)


def with_threads(count: int, run: Callable[[], Any]) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return run()
    finally:
        torch.set_num_threads(before)


def test_same_bits_in_every_run_and_on_any_number_of_threads() -> None:
    arguments = big_batch()
    runs = [with_threads(count, lambda: paste_defects(**arguments, backend="native")) for count in (1, 2, 2, 5)]
    for images, opacity in runs[1:]:
        assert torch.equal(images, runs[0][0])
        assert torch.equal(opacity, runs[0][1])


def test_calls_at_once_do_not_disturb_each_other() -> None:
    batches = [any_batch(seed) for seed in range(40, 60)]
    alone = [paste_defects(**arguments, backend="native") for arguments in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda arguments: paste_defects(**arguments, backend="native"), batches))
    for got, expected in zip(together, alone, strict=True):
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
