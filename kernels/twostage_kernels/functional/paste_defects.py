"""The public defect-pasting op."""

import torch
from torch import Tensor

from twostage_kernels import checks
from twostage_kernels.backends import choose_backend


def paste_defects(
    target: Tensor,  # [B, C, H, W]
    source: Tensor,  # [S, C, h, w]
    vertices: Tensor,  # [P, 7, 2] target pixels, (x, y); rows past vertex_count are ignored
    vertex_count: Tensor,  # [P] integer, 3..7, or 0 for an empty slot
    image_index: Tensor,  # [P] integer, the image each polygon is pasted into
    source_index: Tensor,  # [P] integer, the source image each polygon is cut from
    transform: Tensor,  # [P, 2, 3] affine map from target pixels (x, y, 1) to source pixels (x, y)
    blur_sigma: Tensor,  # [P] target pixels, >= 0; 0 keeps hard edges
    *,
    strength: Tensor | None = None,  # [P] opacity of the unblurred cut-out in [0, 1]; None is 1
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Paste blurred polygon cut-outs of ``source`` into ``target``.

    A pixel is inside by the even-odd rule, tested at its centre (x + 0.5, y + 0.5); of two polygons that share an
    edge one owns it. Every target pixel inside reads ``source`` at ``transform`` of its centre (bilinear, the nearest
    edge pixel beyond the border), so position, scale, aspect and rotation are all in ``transform``. The cut-out and its
    mask are blurred together (Gaussian, cut off at 3 sigma rounded up to whole pixels; beyond the image there is
    nothing) and blended; later polygons of an image lie on top.

    Returns:
        The defective images [B, C, H, W] in ``target``'s dtype and their opacity [B, 1, H, W] in [0, 1], float32
        (float64 for float64). Pixels with opacity 0 equal ``target`` bit for bit.

    Raises:
        TypeError: an argument is no tensor, or its dtype is not accepted; images may be float16, bfloat16, float32,
            float64 or uint8.
        ValueError: a shape, device, value or backend does not fit; the message names the argument.
        RuntimeError: the named backend is not available here.

    Not differentiable. The same inputs give the same bits on one device and backend.
    Source: Shiferaw & Yao 2024, Sec. 3.2, Eq. (1).
    """
    if strength is None:
        strength = torch.ones_like(blur_sigma)
    checks.require_defects(
        target, source, vertices, vertex_count, image_index, source_index, transform, blur_sigma, strength
    )
    paste = choose_backend("paste_defects", target.device, backend)
    with torch.no_grad(), torch.autocast(target.device.type, enabled=False):
        images, opacity = paste(
            target, source, vertices, vertex_count, image_index, source_index, transform, blur_sigma, strength
        )
    return images, opacity
