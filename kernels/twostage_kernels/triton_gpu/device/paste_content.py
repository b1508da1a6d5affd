"""What a polygon cuts out: its source at the pixels inside, bilinear, in the polygon's colours."""

import triton
import triton.language as tl


@triton.jit
def whole_and_part(place, TYPE: tl.constexpr, INDEX: tl.constexpr):
    """An integer and the rest of a float64: their sums keep 2^-23 pixel wherever the place lies."""
    # What no image reaches is not told apart.
    furthest = 1e9 if INDEX == tl.int32 else 1e18
    place = tl.minimum(tl.maximum(place, -furthest), furthest)
    whole = tl.floor(place)
    return whole.to(INDEX), (place - whole).to(TYPE)


@triton.jit
def nearest_inside(whole, part, last):
    """The pixel before a place, clamped to 0 .. last, and the place's distance from it."""
    carried = part >= 1.0
    whole += carried.to(whole.dtype)
    part = tl.where(carried, part - 1.0, part)
    before = whole < 0
    behind = whole >= last
    whole = tl.where(before, 0, tl.where(behind, last, whole))
    return whole, tl.where(before | behind, 0.0, part)


@triton.jit
def entry_of(transform, entry, TYPE: tl.constexpr):
    return tl.load(transform + entry).to(TYPE).to(tl.float64)


@triton.jit
def source_places(row, column, transform, last_row, last_column, TYPE: tl.constexpr, INDEX: tl.constexpr):
    """Where target pixels read: row and column of a source pixel [R, C] and the distances from it."""
    x = column.to(tl.float64) + 0.5
    y = row.to(tl.float64) + 0.5
    by_x, part_by_x = whole_and_part(entry_of(transform, 0, TYPE) * x, TYPE, INDEX)
    by_y, part_by_y = whole_and_part(
        entry_of(transform, 1, TYPE) * y + (entry_of(transform, 2, TYPE) - 0.5), TYPE, INDEX
    )
    left, along = nearest_inside(by_x + by_y, part_by_x + part_by_y, last_column)
    by_x, part_by_x = whole_and_part(entry_of(transform, 3, TYPE) * x, TYPE, INDEX)
    by_y, part_by_y = whole_and_part(
        entry_of(transform, 4, TYPE) * y + (entry_of(transform, 5, TYPE) - 0.5), TYPE, INDEX
    )
    top, down = nearest_inside(by_x + by_y, part_by_x + part_by_y, last_row)
    return top, left, down, along


@triton.jit
def load_colours(values, polygon, channels, first_channel, default, GROUP: tl.constexpr, TYPE: tl.constexpr):
    """One number for each channel of the group."""
    numbers = ()
    for place in tl.static_range(GROUP):
        if values is None:
            number = tl.full((), default, TYPE)
        else:
            number = tl.load(values + polygon * channels + first_channel + place).to(TYPE)
        numbers = numbers + (number,)
    return numbers


@triton.jit
def sampled(
    source,
    seen,  # [R, C]: nothing else is read
    row,
    column,
    transform,
    place,  # of the source image: first element, size (rows, columns), strides (channel, row, column)
    scale,  # None: 1
    colours,  # gains, offsets, lowest, highest, or None
    GROUP: tl.constexpr,
    TYPE: tl.constexpr,
    INDEX: tl.constexpr,
):
    """The content at pixels that are ``seen``, one [R, C] for each channel of the group; 0 elsewhere."""
    first, size, strides = place
    last_row = (size[0] - 1).to(INDEX)
    last_column = (size[1] - 1).to(INDEX)
    row_stride = tl.cast(strides[1], INDEX)
    column_stride = tl.cast(strides[2], INDEX)
    top, left, down, along = source_places(row, column, transform, last_row, last_column, TYPE, INDEX)
    upper = top * row_stride + left * column_stride
    lower = upper + tl.where(top < last_row, row_stride, 0)
    right = tl.where(left < last_column, column_stride, 0)
    values = ()
    for channel in tl.static_range(GROUP):
        plane = source + first + channel * strides[0]
        upper_left = tl.load(plane + upper, mask=seen, other=0).to(TYPE)
        upper_right = tl.load(plane + (upper + right), mask=seen, other=0).to(TYPE)
        lower_left = tl.load(plane + lower, mask=seen, other=0).to(TYPE)
        lower_right = tl.load(plane + (lower + right), mask=seen, other=0).to(TYPE)
        on_top = upper_left + along * (upper_right - upper_left)
        at_bottom = lower_left + along * (lower_right - lower_left)
        value = on_top + down * (at_bottom - on_top)
        if scale is not None:
            value *= scale
        if colours is not None:
            gains, offsets, lowest, highest = colours
            value = value * gains[channel] + offsets[channel]
            # A NaN stays one.
            value = tl.where(value < lowest, lowest, tl.where(value > highest, highest, value))
        values = values + (tl.where(seen, value, 0.0),)
    return values
