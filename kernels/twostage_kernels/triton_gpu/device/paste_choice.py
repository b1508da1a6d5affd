"""Which polygons touch a tile: each lane looks at one of them, and at whether it can be pasted at all."""

import triton
import triton.language as tl

from twostage_kernels.triton_gpu.device.images import is_finite
from twostage_kernels.triton_gpu.device.paste_shape import MOST_VERTICES, rounded

SMALLEST_BLUR = tl.constexpr(1e-3)  # pixels: a narrower one is none
MOST_BLUR = tl.constexpr(64.0)
MOST_EDGE_AMPLITUDE = tl.constexpr(64.0)
BLEND_MODES = tl.constexpr(6)


@triton.jit
def blur_radius(sigma):
    """How far the blur reaches, in pixels."""
    return tl.where(sigma < SMALLEST_BLUR, 0.0, tl.ceil(3.0 * sigma)).to(tl.int32)


@triton.jit
def source_exists(source_layout, index, sources, channels, elements, good):
    """Whether there is a source image of this number, and lies within the source's elements."""
    good = good & (index >= 0) & (index < sources)
    if source_layout is not None:
        first = tl.load(source_layout + 3 * index, mask=good, other=0).to(tl.int64)
        rows = tl.load(source_layout + 3 * index + 1, mask=good, other=0).to(tl.int64)
        columns = tl.load(source_layout + 3 * index + 2, mask=good, other=0).to(tl.int64)
        good = good & (first >= 0) & (first <= elements) & (rows > 0) & (columns > 0)
        # Divided rather than multiplied, which could overflow.
        room = tl.where(good, elements - first, 0) // channels
        good = good & (columns <= room // tl.where(good, rows, 1))
    return good


@triton.jit
def source_place(source_layout, index, channel, height, width, strides):
    """First element of a channel, size (rows, columns) and strides (channel, row, column) of an image that exists.

    ``strides`` are those of a stacked source (image, channel, row, column); one with a layout is packed.
    """
    if source_layout is None:
        first = index * strides[0] + channel * strides[1]
        place = (first, (height, width), (strides[1], strides[2], strides[3]))
    else:
        first = tl.load(source_layout + 3 * index).to(tl.int64)
        rows = tl.load(source_layout + 3 * index + 1).to(tl.int64)
        columns = tl.load(source_layout + 3 * index + 2).to(tl.int64)
        first += channel * rows * columns
        place = (first, (rows, columns), (rows * columns, columns, tl.full((), 1, tl.int64)))
    return place


@triton.jit
def finite_entries(values, polygon, entries, mine, good, TYPE: tl.constexpr):
    """Whether all of a polygon's ``entries`` are finite; None has none."""
    if values is not None:
        for entry in range(entries):
            good = good & is_finite(tl.load(values + polygon * entries + entry, mask=mine, other=0).to(TYPE))
    return good


@triton.jit
def within(values, polygon, lowest, highest, mine, good, TYPE: tl.constexpr):
    """Whether a polygon's number lies in its range; NaN does not."""
    if values is not None:
        number = tl.load(values + polygon, mask=mine, other=0).to(TYPE)
        good = good & (number >= lowest) & (number <= highest)
    return good


@triton.jit
def extent_of(vertices, polygon, count, mine, good, TYPE: tl.constexpr):
    """Whether all vertices are finite, and the smallest and largest x and y."""
    low_x = tl.full(polygon.shape, float("inf"), tl.float64)
    low_y = low_x
    high_x = -low_x
    high_y = -low_x
    for vertex in tl.static_range(MOST_VERTICES):
        real = vertex < count
        at = vertices + polygon * (2 * MOST_VERTICES) + 2 * vertex
        x = tl.load(at, mask=mine, other=0.0).to(TYPE)
        y = tl.load(at + 1, mask=mine, other=0.0).to(TYPE)
        good = good & ((is_finite(x) & is_finite(y)) | ~real)
        low_x = tl.where(real & (x < low_x), x.to(tl.float64), low_x)
        low_y = tl.where(real & (y < low_y), y.to(tl.float64), low_y)
        high_x = tl.where(real & (x > high_x), x.to(tl.float64), high_x)
        high_y = tl.where(real & (y > high_y), y.to(tl.float64), high_y)
    return good, low_x, low_y, high_x, high_y


@triton.jit
def clamped(place, size):
    """Rounded down, and held within 0 .. size."""
    return tl.floor(tl.minimum(tl.maximum(place, 0.0), tl.cast(size, tl.float64))).to(tl.int32)


@triton.jit
def boxes(extent, margin, height, width, TYPE: tl.constexpr):
    """Rows and columns (begin, end) of the image outside of which no pixel is inside."""
    low_x, low_y, high_x, high_y = extent
    # A crossing far outside the image is rounded to more than a pixel.
    largest = tl.maximum(tl.maximum(-low_x, high_x), tl.maximum(-low_y, high_y))
    rounding = largest * (9.5367431640625e-07 if TYPE == tl.float32 else 1.7763568394002505e-15)
    row_begin = clamped(low_y - 0.5 - margin, height)
    row_end = clamped(high_y + margin + 1.0, height)
    column_begin = clamped(low_x - 0.5 - margin - rounding, width)
    column_end = clamped(high_x + 1.5 + margin + rounding, width)
    return row_begin, row_end, column_begin, column_end


@triton.jit
def noise_margin(edge_amplitude, polygon, good, TYPE: tl.constexpr):
    """How many pixels noise can move an edge, rounding included."""
    margin = tl.zeros(polygon.shape, tl.float64)
    if edge_amplitude is not None:
        reach = rounded(tl.load(edge_amplitude + polygon, mask=good, other=0).to(TYPE) * 256.0)
        margin = tl.where(reach > 0, 1.0 + reach.to(tl.float64) / 256.0, 0.0)
    return margin


@triton.jit
def usable_boxes(
    vertices,
    vertex_count,
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
    polygon,
    mine,  # lanes whose polygon is one of the image's
    channels,
    height,
    width,
    sources,
    source_elements,
    TYPE: tl.constexpr,
):
    """Whether polygons can be pasted, and their boxes (see ``boxes``) and how far their blurs reach.

    What belongs to empty slots is read too, but not used: so hardly a load waits for another.
    """
    count = tl.load(vertex_count + polygon, mask=mine, other=0).to(tl.int64)
    index = tl.load(source_index + polygon, mask=mine, other=0).to(tl.int64)
    good = mine & (count >= 3) & (count <= MOST_VERTICES)
    good = within(blur_sigma, polygon, 0.0, MOST_BLUR, mine, good, TYPE)
    good = within(strength, polygon, 0.0, 1.0, mine, good, TYPE)
    good = within(blend_mode, polygon, 0, BLEND_MODES - 1, mine, good, tl.int64)
    good = within(edge_amplitude, polygon, 0.0, MOST_EDGE_AMPLITUDE, mine, good, TYPE)
    good = within(edge_grain, polygon, 1.0, float("inf"), mine, good, TYPE)
    good = finite_entries(edge_grain, polygon, 1, mine, good, TYPE)
    good = finite_entries(transform, polygon, 6, mine, good, TYPE)
    good = finite_entries(color_gain, polygon, channels, mine, good, TYPE)
    good = finite_entries(color_offset, polygon, channels, mine, good, TYPE)
    good = source_exists(source_layout, index, sources, channels, source_elements, good)
    good, low_x, low_y, high_x, high_y = extent_of(vertices, polygon, count, mine, good, TYPE)
    margin = noise_margin(edge_amplitude, polygon, good, TYPE)
    box = boxes((low_x, low_y, high_x, high_y), margin, height, width, TYPE)
    sigma = tl.load(blur_sigma + polygon, mask=mine, other=0.0).to(TYPE)
    return good, box, blur_radius(tl.where(good, sigma, 0.0))
