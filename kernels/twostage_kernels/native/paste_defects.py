"""``paste_defects`` on the CPU: tensors in, tensors out, addresses in between."""

import torch
from torch import Tensor

from twostage_kernels.native.extension import chosen_instruction_set, extension
from twostage_kernels.paste_arguments import Polygons
from twostage_kernels.paste_checks import require_values
from twostage_kernels.paste_registration import PasteDefects, register_paste

# Numbers of PixelType in csrc/paste.h.
_TYPES = {torch.uint8: 0, torch.float16: 1, torch.bfloat16: 2, torch.float32: 3, torch.float64: 4}


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
    packed = [None if value is None else _plain(value, opacity.dtype) for value in polygons]
    values = Polygons(*packed)  # type: ignore[arg-type]
    layout = values.source_layout
    source = source if layout is None else source.contiguous()
    unusable = extension.paste_defects(
        target.shape,
        target.stride(),
        _TYPES[target.dtype],
        _TYPES[source.dtype],
        (target.data_ptr(), into.data_ptr(), source.data_ptr(), _address(layout)),
        (*source.shape[:1], *source.shape[2:], source.numel()) if layout is None else (len(layout), 0, 0, len(source)),
        source.stride() if layout is None else (0, 0, 0, 0),
        value_range,
        len(values.vertex_count),
        [_address(value) for name, value in values._asdict().items() if name != "source_layout"] + [opacity.data_ptr()],
        torch.get_num_threads(),
        chosen_instruction_set(),
    )
    if unusable:
        require_values(target, source, values)
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


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype if tensor.is_floating_point() else torch.int64).contiguous()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


paste_defects: PasteDefects = register_paste("native", "CPU", _run)
