"""The public defect-pasting op."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from twostage_kernels import paste_checks
from twostage_kernels.backends import choose_backend
from twostage_kernels.paste_arguments import Polygons


def paste_defects(
    target: Tensor,  # [B, C, H, W]
    source: Tensor,  # [S, C, h, w], or [N] with source_layout
    vertices: Tensor,  # [P, 7, 2] target pixels, (x, y); rows past vertex_count are ignored
    vertex_count: Tensor,  # [P] integer, 3..7, or 0 for an empty slot
    image_index: Tensor | None,  # [P] integer, the image each polygon is pasted into; None: P / B for every image
    source_index: Tensor,  # [P] integer, the source image each polygon is cut from
    transform: Tensor,  # [P, 2, 3] affine map from target pixels (x, y, 1) to source pixels (x, y)
    blur_sigma: Tensor,  # [P] target pixels, 0..64; 0 keeps hard edges
    *,
    source_layout: Tensor | None = None,  # [S, 3] integer: offset, height and width of each image in a packed source
    strength: Tensor | None = None,  # [P] opacity of the unblurred cut-out in [0, 1]; None is 1
    color_gain: Tensor | None = None,  # [P, C] factor on the cut-out's values; None is 1
    color_offset: Tensor | None = None,  # [P, C] added after color_gain; None is 0
    blend_mode: Tensor | None = None,  # [P] integer, index into BLEND_MODES; None is 0, "normal"
    edge_amplitude: Tensor | None = None,  # [P] pixels, 0..64, by which noise moves the edge; None: straight edges
    edge_grain: Tensor | None = None,  # [P] pixels, at least 1: size of the noise's grains
    edge_seed: Tensor | None = None,  # [P] integer, the noise itself; its lowest 32 bits count
    value_range: tuple[float, float] | None = None,  # of the images; None: (0, 1), or (0, 255) for a uint8 target
    out: Tensor | None = None,  # [B, C, H, W], may be target itself
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Paste blurred polygon cut-outs of ``source`` into ``target``.

    A pixel is inside by the even-odd rule, tested at its centre (x + 0.5, y + 0.5); of two polygons that share an
    edge one owns it. Every target pixel inside reads ``source`` at ``transform`` of its centre (bilinear, the nearest
    edge pixel beyond the border), so position, scale, aspect and rotation are all in ``transform``. The cut-out and its
    mask are blurred together (Gaussian, cut off at 3 sigma rounded up to whole pixels; beyond the image there is
    nothing) and blended; later polygons of an image lie on top.

    Source images of different sizes are packed: ``source`` holds them one behind the other, each as C planes of
    height x width, and ``source_layout`` says where. With ``image_index=None`` the polygons lie in equal slots,
    those of image b at b * P / B and behind. Values in a slot without vertices are never looked at.

    The rest is optional, and off by default. ``color_gain`` and ``color_offset`` change the cut-out before it is
    blurred (for a contrast change g about a mean m, the offset is m * (1 - g)); the result is clamped to
    ``value_range``. ``blend_mode`` mixes the blurred cut-out with what lies below by another rule than covering it:
    multiply, screen, darken, lighten, or grain_merge (their sum less half the range). ``edge_amplitude`` moves the
    point that stands for each pixel's centre by smooth noise, along each axis by up to as many pixels, before it is
    tested against the polygon.

    Args:
        target: uint8, float16, bfloat16, float32 or float64, any strides. Sums are held in float32 (float64 for
            float64).
        source: in the dtype of ``target``, or uint8: beside a floating-point target 255 then counts as 1.
        out: takes the images; where it is ``target``, pixels that no polygon touches are not even copied.
        backend: "auto" or one of ``available_backends("paste_defects", device)``.

    Returns:
        The defective images [B, C, H, W] in ``target``'s dtype and memory format, and their opacity [B, 1, H, W] in
        [0, 1], float32 (float64 for float64). Pixels with opacity 0 equal ``target`` bit for bit.

    Raises:
        TypeError: an argument is no tensor, or its dtype is not accepted.
        ValueError: a shape, device, value or backend does not fit; the message names the argument. Values are checked
            where reading them waits for no device; elsewhere a polygon with unusable values is left out.
        RuntimeError: the named backend is not available here.

    Not differentiable. The same inputs give the same bits on one device and backend.
    Source: Shiferaw & Yao 2024, Sec. 3.2, Eq. (1); the optional parts follow its future work.
    """
    polygons = Polygons(
        vertices,
        vertex_count,
        image_index,
        source_index,
        source_layout,
        transform,
        blur_sigma,
        strength,
        color_gain,
        color_offset,
        blend_mode,
        edge_amplitude,
        edge_grain,
        edge_seed,
    )
    paste_checks.require_paste_images(target, source, source_layout)
    paste_checks.require_polygons(target, source, polygons)
    if value_range is None:
        value_range = (0.0, 255.0) if target.dtype == torch.uint8 else (0.0, 1.0)
    value_range = paste_checks.require_value_range(value_range)
    if out is not None:
        paste_checks.require_out(out, target)
    paste = choose_backend("paste_defects", target.device, backend)
    with torch.no_grad(), _full_precision(target.device.type):
        images, opacity = paste(target, source, polygons, value_range, out)
    return images, opacity


def _full_precision(kind: str) -> AbstractContextManager[object]:
    """No autocast on devices of this kind. Switching off what is not on takes longer than a small image."""
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
