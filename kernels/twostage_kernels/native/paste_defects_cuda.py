"""``paste_defects`` on NVIDIA's GPUs, on the current stream: tensors in, tensors out, addresses in between."""

import torch
from torch import Tensor

from twostage_kernels.native.cuda import cuda_extension
from twostage_kernels.native.paste_call import paste_call, plain_polygons
from twostage_kernels.paste_arguments import Polygons


def run(
    target: Tensor,
    source: Tensor,
    polygons: Polygons,
    value_range: tuple[float, float],
    out: Tensor,
    opacity: Tensor,
) -> None:
    """See :class:`twostage_kernels.paste_registration.PasteKernel`."""
    assert cuda_extension is not None
    with torch.cuda.device(target.device):
        if target.stride() != out.stride():
            target = out.copy_(target)
        # Kept until all is queued: torch reuses their memory on this stream only, later.
        polygons = plain_polygons(polygons, opacity.dtype)
        source = source if polygons.source_layout is None else source.contiguous()
        cuda_extension.paste_defects(
            *paste_call(target, source, polygons, value_range, out, opacity),
            target.get_device(),
            torch.cuda.current_stream().cuda_stream,
        )
