"""The last steps of a pixel: what lies below is mixed with a cut-out, and the result rounded to the image's type."""

import triton
import triton.language as tl

from twostage_kernels.triton_gpu.device.paste_shape import rounded


@triton.jit
def mixed(below, above, mode, low, size):
    """Under a blend mode other than the plain one; ``low`` and ``size`` are those of the range of values."""
    b = (below - low) / size
    a = (above - low) / size
    merged = b + a - 0.5
    merged = tl.where(merged < 0.0, 0.0, tl.where(merged > 1.0, 1.0, merged))
    # csrc/paste.h numbers them.
    mix = tl.where(mode == 1, b * a, 1.0 - (1.0 - b) * (1.0 - a))
    mix = tl.where(mode == 3, tl.where(b < a, b, a), mix)
    mix = tl.where(mode == 4, tl.where(b > a, b, a), mix)
    mix = tl.where(mode == 5, merged, mix)
    return low + mix * size


@triton.jit
def blended(images, opacity, cut, level, mode, low, size, GROUP: tl.constexpr):
    """Paste a blurred cut-out (its channels, then its mask) onto the channels; ``mode`` is None where all are plain."""
    alpha = cut[GROUP] * level
    clear = 1.0 - alpha
    seen = alpha > 0
    results = ()
    for channel in tl.static_range(GROUP):
        below = images[channel]
        value = below * clear + cut[channel] * level
        if mode is not None:
            above = mixed(below, cut[channel] / tl.where(seen, cut[GROUP], 1.0), mode, low, size)
            value = tl.where(mode == 0, value, below * clear + above * alpha)
        results = results + (tl.where(seen, value, below),)
    return results, tl.where(seen, opacity * clear + alpha, opacity)


@triton.jit
def as_pixels(value, TYPE: tl.constexpr):
    """In the image's type; bytes to the nearest."""
    if TYPE == tl.uint8:
        # A NaN becomes 0, as it would not by itself on every device.
        value = tl.where(value > 0.0, tl.where(value < 255.0, value, 255.0), 0.0)
        pixels = rounded(value).to(tl.int32).to(tl.uint8)
    else:
        pixels = value.to(TYPE)
    return pixels
