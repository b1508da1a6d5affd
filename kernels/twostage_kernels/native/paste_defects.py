"""``paste_defects`` on the CPU, and its registration: tensors in, tensors out, addresses in between."""

import torch
from torch import Tensor

from twostage_kernels.native import paste_defects_cuda
from twostage_kernels.native.cuda import cuda_extension
from twostage_kernels.native.extension import chosen_instruction_set, extension
from twostage_kernels.native.paste_call import paste_call, plain_polygons
from twostage_kernels.paste_arguments import Polygons
from twostage_kernels.paste_checks import require_values
from twostage_kernels.paste_registration import PasteDefects, PasteKernel, register_paste


def _run(
    target: Tensor,
    source: Tensor,
    polygons: Polygons,
    value_range: tuple[float, float],
    out: Tensor,
    opacity: Tensor,
) -> None:
    assert extension is not None
    direct = _fills_its_images(out)
    into = out if direct else out.contiguous()
    if out is target:
        target = into
    elif target.stride() != into.stride():
        target = into.copy_(target)
    # The names keep the tensors, and with them the addresses, alive.
    polygons = plain_polygons(polygons, opacity.dtype)
    source = source if polygons.source_layout is None else source.contiguous()
    unusable = extension.paste_defects(
        *paste_call(target, source, polygons, value_range, into, opacity),
        torch.get_num_threads(),
        chosen_instruction_set(),
    )
    if unusable:
        require_values(target, source, polygons)
        raise AssertionError(f"{unusable} unusable polygons passed the checks")
    if not direct:
        out.copy_(into)


def _fills_its_images(images: Tensor) -> bool:
    """Whether the elements of every image lie in one piece of memory, in any order, and no two images share any."""
    _, *shape = images.shape
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(images.stride()[1:], shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return len(images) < 2 or images.stride(0) >= expected


_KERNELS: dict[str, PasteKernel] = {"cpu": _run}
if cuda_extension is not None:
    _KERNELS["cuda"] = paste_defects_cuda.run
paste_defects: PasteDefects = register_paste("native", _KERNELS)
