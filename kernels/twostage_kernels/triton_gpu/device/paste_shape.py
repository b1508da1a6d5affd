"""Which pixels are inside a polygon: the even-odd rule at their centres, which noise may have moved.

Every operation is rounded by itself, so that all backends find the same pixels: compile without fused multiply-adds.
"""

import triton
import triton.language as tl

MOST_VERTICES = tl.constexpr(7)
_SUBPIXELS = tl.constexpr(256)
_FIELD_STEP = tl.constexpr(0x9E3779B9)
_X_STEP = tl.constexpr(0x85EBCA77)
_Y_STEP = tl.constexpr(0xC2B2AE3D)
_FIRST_FACTOR = tl.constexpr(0x7FEB352D)
_SECOND_FACTOR = tl.constexpr(0x846CA68B)


@triton.jit
def divided(a, b):
    """The quotient that IEEE 754 asks for; float32 would get a faster one."""
    return a / b if a.dtype == tl.float64 else tl.div_rn(a, b)


@triton.jit
def rounded(value):
    """To the nearest integer, halves to the even one, below 2^22 (2^51 in float64)."""
    if value.dtype == tl.float64:
        result = (value + 6755399441055744.0) - 6755399441055744.0
    else:
        result = (value + 12582912.0) - 12582912.0
    return result


@triton.jit
def spread(word):
    """Every bit of a word over all ("lowbias32" of C. Wellons' hash prospector)."""
    word = (word ^ (word >> 16)) * tl.cast(_FIRST_FACTOR, tl.uint32)
    word = (word ^ (word >> 15)) * tl.cast(_SECOND_FACTOR, tl.uint32)
    return word ^ (word >> 16)


@triton.jit
def corner(word, row):
    return (spread(word ^ (row * tl.cast(_Y_STEP, tl.uint32))) >> 16).to(tl.int32) - 32768


@triton.jit
def smooth(position):
    """3 t^2 - 2 t^3 of the place within the cell, in 1/1024."""
    t = (position & 0xFFFF) >> 6
    return ((t * t * (3072 - 2 * t)) >> 20).to(tl.int32)


@triton.jit
def value_noise(seed, x, y):
    """Noise at points of the lattice's plane, 16 bits behind the point, in [-32768, 32767]."""
    column = x >> 16
    row = y >> 16
    down = smooth(y)
    left_word = spread(seed ^ (column * tl.cast(_X_STEP, tl.uint32)))
    right_word = spread(seed ^ ((column + 1) * tl.cast(_X_STEP, tl.uint32)))
    upper_left = corner(left_word, row)
    upper_right = corner(right_word, row)
    left = upper_left + (((corner(left_word, row + 1) - upper_left) * down) >> 10)
    right = upper_right + (((corner(right_word, row + 1) - upper_right) * down) >> 10)
    return left + (((right - left) * smooth(x)) >> 10)


@triton.jit
def displacement(seed, x, y, reach):
    """How far points of the lattice's plane are moved along one axis, in 1/256 pixel."""
    own = spread(seed)
    coarse = value_noise(own, x, y)
    fine = value_noise(own ^ tl.cast(_FIELD_STEP, tl.uint32), x * 2, y * 2)
    return (((3 * coarse + fine) >> 2) * reach) >> 15


@triton.jit
def load_noise(edge_amplitude, edge_grain, edge_seed, polygon, TYPE: tl.constexpr):
    """Reach in 1/256 pixel, cells from pixel to pixel in 1/65536, and the noise's own word."""
    reach = rounded(tl.load(edge_amplitude + polygon).to(TYPE) * 256.0).to(tl.int32)
    grain = tl.load(edge_grain + polygon).to(TYPE)
    step = rounded(divided(tl.full(grain.shape, 65536.0, TYPE), grain)).to(tl.int32).to(tl.uint32)
    return reach, step, tl.load(edge_seed + polygon).to(tl.int64).to(tl.uint32)


@triton.jit
def inside_polygon(row, column, corners, noise, TYPE: tl.constexpr):
    """Whether the pixels at ``row`` [R, 1] and ``column`` [1, C] are inside: [R, C].

    ``corners``: the polygon's first vertex and their number. ``noise`` is None without any.
    """
    x = column.to(tl.int64) * _SUBPIXELS + _SUBPIXELS // 2
    y = row.to(tl.int64) * _SUBPIXELS + _SUBPIXELS // 2
    if noise is not None:
        reach, step, word = noise
        plane_x = column.to(tl.uint32) * step
        plane_y = row.to(tl.uint32) * step
        x += displacement(word, plane_x, plane_y, reach)
        y += displacement(word + tl.cast(_FIELD_STEP, tl.uint32), plane_x, plane_y, reach)
    x = x.to(TYPE) / 256.0
    y = y.to(TYPE) / 256.0
    first, count = corners
    crossings = tl.zeros((row.shape[0], column.shape[1]), tl.int32)
    x0 = tl.load(first + 2 * count - 2).to(TYPE)
    y0 = tl.load(first + 2 * count - 1).to(TYPE)
    for vertex in range(count):
        x1 = tl.load(first + 2 * vertex).to(TYPE)
        y1 = tl.load(first + 2 * vertex + 1).to(TYPE)
        # From the lower end to the upper one, whichever comes first.
        flip = y1 < y0
        low_x = tl.where(flip, x1, x0)
        low_y = tl.where(flip, y1, y0)
        high_y = tl.where(flip, y0, y1)
        along = tl.where(flip, x0, x1) - low_x
        rise = tl.where(high_y > low_y, high_y - low_y, 1.0)
        spans = (low_y <= y) & (y < high_y)
        climbed = tl.where(spans, y - low_y, 0.0)
        crossing = low_x + divided(climbed, rise.to(TYPE)) * along
        crossings += (spans & (x < crossing)).to(tl.int32)
        x0 = x1
        y0 = y1
    return (crossings & 1) != 0
