"""The way back: from the derivatives of the windows to the gradients of the pixels they cover.

A window's derivatives are five: offset and slope of x, the cross slope, offset and slope of y (the last two with both
gradients only). Offsets are taken about the column's shift: the derivative by a pixel is
offset + slope * (pixel - shift) + cross * (other image's pixel - its shift), times the pixel's weight.
"""

import triton
import triton.language as tl

from twostage_kernels.triton_gpu.device.filters import enter


@triton.jit
def window_derivatives(derivatives, mean_x, mean_y, factor, exists, BOTH: tl.constexpr, SCALED: tl.constexpr):
    """Derivatives about the column's shift, of which the window's means are (mean_x, mean_y); 0 where it is none.

    ``derivatives`` are those about the means, to be multiplied by ``factor`` if SCALED.
    """
    offset_x, slope_x, cross, offset_y, slope_y = derivatives
    if SCALED:
        offset_x *= factor
        slope_x *= factor
        cross *= factor
        offset_y *= factor
        slope_y *= factor
    offset_x = tl.where(exists, offset_x - slope_x * mean_x - cross * mean_y, 0.0)
    slope_x = tl.where(exists, slope_x, 0.0)
    if BOTH:
        offset_y = tl.where(exists, offset_y - slope_y * mean_y - cross * mean_x, 0.0)
        slope_y = tl.where(exists, slope_y, 0.0)
    return offset_x, slope_x, tl.where(exists, cross, 0.0), offset_y, slope_y


@triton.jit
def enter_windows(pending, windows, weights, HALF: tl.constexpr, BOTH: tl.constexpr):
    """Add a row of windows to the pending sums of the pixels they cover.

    Returns the derivatives by a row of pixels, summed down the columns, and what remains pending.
    """
    offsets_x, slopes_x, crosses, offsets_y, slopes_y = pending
    offset_x, offsets_x = enter(offsets_x, windows[0], windows[0], weights, HALF)
    slope_x, slopes_x = enter(slopes_x, windows[1], windows[1], weights, HALF)
    cross, crosses = enter(crosses, windows[2], windows[2], weights, HALF)
    offset_y = offset_x
    slope_y = slope_x
    if BOTH:
        offset_y, offsets_y = enter(offsets_y, windows[3], windows[3], weights, HALF)
        slope_y, slopes_y = enter(slopes_y, windows[4], windows[4], weights, HALF)
    return (offset_x, slope_x, cross, offset_y, slope_y), (offsets_x, slopes_x, crosses, offsets_y, slopes_y)


@triton.jit
def moved_derivatives(pending, complete, move_x, move_y, HALF: tl.constexpr, BOTH: tl.constexpr):
    """Pending and complete derivatives about a shift that has moved by (move_x, move_y)."""
    offsets_x, slopes_x, crosses, offsets_y, slopes_y = pending
    offset_x, slope_x, cross, offset_y, slope_y = complete
    offset_x += slope_x * move_x + cross * move_y
    moved_x = ()
    for place in tl.static_range(2 * HALF):
        moved_x = moved_x + (offsets_x[place] + slopes_x[place] * move_x + crosses[place] * move_y,)
    moved_y = offsets_y
    if BOTH:
        offset_y += slope_y * move_y + cross * move_x
        moved_y = ()
        for place in tl.static_range(2 * HALF):
            moved_y = moved_y + (offsets_y[place] + slopes_y[place] * move_y + crosses[place] * move_x,)
    return (moved_x, slopes_x, crosses, moved_y, slopes_y), (offset_x, slope_x, cross, offset_y, slope_y)


@triton.jit
def store_derivatives(near, complete, shift_x, shift_y, FIELD: tl.constexpr, BOTH: tl.constexpr):
    tl.store(near, complete[0])
    tl.store(near + FIELD, complete[1])
    tl.store(near + 2 * FIELD, complete[2])
    tl.store(near + 3 * FIELD, shift_x)
    tl.store(near + 4 * FIELD, shift_y)
    if BOTH:
        tl.store(near + 5 * FIELD, complete[3])
        tl.store(near + 6 * FIELD, complete[4])


@triton.jit
def gathered_gradients(x, y, near, FIELD: tl.constexpr, weights, HALF: tl.constexpr, BOTH: tl.constexpr):
    """Gradients of a row of pixels (x, y), summed along the row from what `store_derivatives` has put down."""
    gradient_x = tl.zeros_like(x)
    gradient_y = tl.zeros_like(x)
    for k in tl.static_range(-HALF, HALF + 1):
        weight = weights[k if k > 0 else -k]
        at = near + k
        cross = tl.load(at + 2 * FIELD)
        from_x = x - tl.load(at + 3 * FIELD)
        from_y = y - tl.load(at + 4 * FIELD)
        gradient_x += weight * (tl.load(at) + tl.load(at + FIELD) * from_x + cross * from_y)
        if BOTH:
            gradient_y += weight * (tl.load(at + 5 * FIELD) + tl.load(at + 6 * FIELD) * from_y + cross * from_x)
    return gradient_x, gradient_y
