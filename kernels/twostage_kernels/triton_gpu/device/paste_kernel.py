"""Polygon cut-outs pasted into a batch of images: one program for each tile of an image.

A tile that no polygon touches is copied. For each polygon that touches it, what the blur can reach of the cut-out is
sampled in chunks, and each chunk enters the tile's blurred cut-out by two products with the bands of the Gaussian: its
rows are blurred along themselves, then down. The tile stays in registers from the first polygon to the last.

Where a cut-out holds a number that is none, the pixels of the tile that it touches hold none either.
"""

import triton
import triton.language as tl

from twostage_kernels.triton_gpu.device.filters import copies
from twostage_kernels.triton_gpu.device.images import number
from twostage_kernels.triton_gpu.device.paste_blend import as_pixels, blended
from twostage_kernels.triton_gpu.device.paste_choice import SMALLEST_BLUR, blur_radius, source_place, usable_boxes
from twostage_kernels.triton_gpu.device.paste_content import load_colours, sampled
from twostage_kernels.triton_gpu.device.paste_shape import MOST_VERTICES, inside_polygon, load_noise

_MOST_TAPS = tl.constexpr(256)  # of one side of the blur, 64 * 3 and more


@triton.jit
def gaussian(distance, sigma):
    ratio = distance.to(sigma.dtype) / sigma
    return tl.exp(-0.5 * (ratio * ratio))


@triton.jit
def sum_of_taps(sigma, radius):
    distance = tl.arange(0, _MOST_TAPS)
    return 1.0 + 2.0 * tl.sum(tl.where((distance > 0) & (distance <= radius), gaussian(distance, sigma), 0.0))


@triton.jit
def band_of(distance, sigma, radius, share):
    """The blur's normalised weights at distances in pixels."""
    return tl.where(tl.abs(distance) <= radius, gaussian(distance, sigma) * share, 0.0)


@triton.jit
def with_product(total, a, b, TYPE: tl.constexpr):
    """The matrix product of a and b, added to ``total``."""
    if TYPE == tl.float64:
        # triton 3.6 fails to compile some products of float64.
        place = tl.arange(0, a.shape[1])
        for k in range(a.shape[1]):
            column = tl.sum(tl.where(place[None, :] == k, a, 0.0), axis=1, keep_dims=True)
            row = tl.sum(tl.where(place[:, None] == k, b, 0.0), axis=0, keep_dims=True)
            total += column * row
    else:
        total = tl.dot(a, b, total, input_precision="ieee", out_dtype=TYPE)
    return total


@triton.jit
def cut_out(
    source,
    row,  # [R, 1]
    column,  # [1, C]
    box,  # rows and columns (begin, end) of the cut-out that reach the tile
    corners,
    noise,
    content,  # its transform, and the place of its source
    scale,
    colours,
    GROUP: tl.constexpr,
    TYPE: tl.constexpr,
    INDEX: tl.constexpr,
):
    """The polygon's content and its mask before the blur: GROUP + 1 of [R, C]."""
    seen = inside_polygon(row, column, corners, noise, TYPE) & (row < box[1]) & (column < box[3])
    values = sampled(source, seen, row, column, content[0], content[1], scale, colours, GROUP, TYPE, INDEX)
    return values + (seen.to(TYPE),)


@triton.jit
def blurred_cut_out(
    source,
    row,  # [R, 1] of the tile
    column,  # [1, C]
    sigma,
    radius,
    box,
    corners,
    noise,
    content,
    scale,
    colours,
    GROUP: tl.constexpr,
    CHUNK_ROWS: tl.constexpr,
    CHUNK_COLUMNS: tl.constexpr,
    TYPE: tl.constexpr,
    INDEX: tl.constexpr,
):
    """As ``cut_out`` after the blur."""
    ROWS: tl.constexpr = row.shape[0]
    COLUMNS: tl.constexpr = column.shape[1]
    share = 1.0 / sum_of_taps(sigma, radius)
    sums = copies(tl.zeros((ROWS, COLUMNS), TYPE), GROUP + 1)
    for first_row in range(box[0], box[1], CHUNK_ROWS):
        near_row = first_row + tl.arange(0, CHUNK_ROWS)
        along = copies(tl.zeros((CHUNK_ROWS, COLUMNS), TYPE), GROUP + 1)
        for first_column in range(box[2], box[3], CHUNK_COLUMNS):
            near_column = first_column + tl.arange(0, CHUNK_COLUMNS)
            cut = cut_out(
                source,
                near_row[:, None],
                near_column[None, :],
                box,
                corners,
                noise,
                content,
                scale,
                colours,
                GROUP,
                TYPE,
                INDEX,
            )
            band = band_of(near_column[:, None] - column, sigma, radius, share)
            longer = ()
            for field in tl.static_range(GROUP + 1):
                longer = longer + (with_product(along[field], cut[field], band, TYPE),)
            along = longer
        band = band_of(row - near_row[None, :], sigma, radius, share)
        higher = ()
        for field in tl.static_range(GROUP + 1):
            higher = higher + (with_product(sums[field], band, along[field], TYPE),)
        sums = higher
    return sums


@triton.jit
def read_tile(image, pixel, channel_stride, wanted, GROUP: tl.constexpr):
    channels = ()
    for channel in tl.static_range(GROUP):
        channels = channels + (tl.load(image + channel * channel_stride + pixel, mask=wanted, other=0),)
    return channels


@triton.jit
def as_numbers(channels, GROUP: tl.constexpr, TYPE: tl.constexpr):
    numbers = ()
    for channel in tl.static_range(GROUP):
        numbers = numbers + (channels[channel].to(TYPE),)
    return numbers


@triton.jit
def chosen(values, lane, place):
    """The value of one lane."""
    return tl.sum(tl.where(lane == place, values, 0))


@triton.jit
def next_lane(hit, lane, after, LANES: tl.constexpr):
    """The first lane behind ``after`` that is a hit; LANES if none is."""
    return tl.min(tl.where(hit & (lane > after), lane, LANES))


@triton.jit(
    do_not_specialize=(
        "channels",
        "height",
        "polygons",
        "slots",
        "sources",
        "source_elements",
        "source_height",
        "source_width",
        "source_image_stride",
        "source_channel_stride",
        "source_row_stride",
        "low",
        "high",
    ),
    do_not_specialize_on_alignment=(
        "source",
        "vertices",
        "vertex_count",
        "image_index",
        "source_index",
        "source_layout",
        "transform",
        "blur_sigma",
        "strength",
        "color_gain",
        "color_offset",
        "blend_mode",
        "edge_amplitude",
        "edge_grain",
        "edge_seed",
    ),
)
def paste_kernel(
    target,  # [B, C, H, W]
    out,  # with the same strides; target itself with IN_PLACE
    opacity,  # [B, H, W]
    source,
    vertices,  # [P, 7, 2]
    vertex_count,  # [P]
    image_index,  # [P] or None
    source_index,  # [P]
    source_layout,  # [S, 3] or None
    transform,  # [P, 2, 3]
    blur_sigma,  # [P]
    strength,  # [P] or None, as all that follow
    color_gain,  # [P, C]
    color_offset,
    blend_mode,  # [P]
    edge_amplitude,
    edge_grain,
    edge_seed,
    channels,
    height,
    width,
    image_stride: tl.int64,
    channel_stride: tl.int64,
    row_stride: tl.int64,
    column_stride: tl.int64,
    polygons,
    slots,  # of an image, where there is no image_index
    sources: tl.int64,
    source_elements: tl.int64,
    source_height: tl.int64,
    source_width: tl.int64,
    source_image_stride: tl.int64,
    source_channel_stride: tl.int64,
    source_row_stride: tl.int64,
    source_column_stride: tl.int64,
    low: tl.int64,  # as `number` reads it
    high: tl.int64,
    GROUP: tl.constexpr,  # channels of a program; `channels` is a multiple of it
    ROWS: tl.constexpr,  # of a tile
    COLUMNS: tl.constexpr,
    CHUNK_ROWS: tl.constexpr,  # of a cut-out, sampled at once
    CHUNK_COLUMNS: tl.constexpr,
    LANES: tl.constexpr,  # polygons that are looked at at once
    IN_PLACE: tl.constexpr,
    OFFSET: tl.constexpr,  # type of offsets within a tile
    INDEX: tl.constexpr,  # type of offsets within a plane of a source image
    TYPE: tl.constexpr,
):
    """One program for each tile of a group of an image's channels; tiles beside each other come first."""
    PIXEL: tl.constexpr = target.dtype.element_ty
    across = tl.cdiv(width, COLUMNS)
    down = tl.cdiv(height, ROWS)
    groups = channels // GROUP
    program = tl.program_id(0)
    first_column = (program % across) * COLUMNS
    first_row = (program // across % down) * ROWS
    group = program // (across * down) % groups
    image = program // (across * down * groups)
    first_channel = group * GROUP
    row = first_row + tl.arange(0, ROWS)[:, None]
    column = first_column + tl.arange(0, COLUMNS)[None, :]
    exists = (row < height) & (column < width)
    first = tl.cast(image, tl.int64) * image_stride + tl.cast(first_channel, tl.int64) * channel_stride
    first = first + tl.cast(first_row, tl.int64) * row_stride + tl.cast(first_column, tl.int64) * column_stride
    pixel = (row - first_row).to(OFFSET) * tl.cast(row_stride, OFFSET)
    pixel = pixel + (column - first_column).to(OFFSET) * tl.cast(column_stride, OFFSET)
    place = (row - first_row).to(OFFSET) * width + (column - first_column)

    # In place, a tile is read when the first polygon is found to touch it.
    read = tl.full((), not IN_PLACE, tl.int1)
    pixels = read_tile(target + first, pixel, channel_stride, exists & read, GROUP)
    images = as_numbers(pixels, GROUP, TYPE)
    covered = tl.zeros((ROWS, COLUMNS), TYPE)
    lowest = number(low, TYPE)
    highest = number(high, TYPE)
    source_strides = (source_image_stride, source_channel_stride, source_row_stride, source_column_stride)
    scale = None
    if PIXEL != tl.uint8 and source.dtype.element_ty == tl.uint8:
        scale = tl.full((), 0.00392156862745098, TYPE)

    lane = tl.arange(0, LANES)
    begin = 0 * image
    end = polygons
    if image_index is None:
        begin = image * slots
        end = begin + slots
    for lanes_first in range(begin, end, LANES):
        polygon = (lanes_first + lane).to(tl.int64)
        mine = polygon < end
        if image_index is not None:
            mine = mine & (tl.load(image_index + polygon, mask=mine, other=-1).to(tl.int64) == image)
        good, box_of_lane, radius_of_lane = usable_boxes(
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
            mine,
            channels,
            height,
            width,
            sources,
            source_elements,
            TYPE,
        )
        # What of the cut-outs reaches the tile.
        row_begin = tl.maximum(box_of_lane[0], first_row - radius_of_lane)
        row_end = tl.minimum(box_of_lane[1], tl.minimum(first_row + ROWS, height) + radius_of_lane)
        column_begin = tl.maximum(box_of_lane[2], first_column - radius_of_lane)
        column_end = tl.minimum(box_of_lane[3], tl.minimum(first_column + COLUMNS, width) + radius_of_lane)
        hit = good & (row_begin < row_end) & (column_begin < column_end)
        at = next_lane(hit, lane, -1, LANES)
        while at < LANES:
            if IN_PLACE:
                pixels_now = read_tile(target + first, pixel, channel_stride, exists & ~read, GROUP)
                images_now = as_numbers(pixels_now, GROUP, TYPE)
                fresh = ()
                for channel in tl.static_range(GROUP):
                    fresh = fresh + (tl.where(read, images[channel], images_now[channel]),)
                images = fresh
                read = tl.full((), True, tl.int1)
            which = tl.cast(lanes_first + at, tl.int64)
            box = (
                chosen(row_begin, lane, at),
                chosen(row_end, lane, at),
                chosen(column_begin, lane, at),
                chosen(column_end, lane, at),
            )
            index_now = tl.load(source_index + which).to(tl.int64)
            source_now = source_place(
                source_layout, index_now, first_channel, source_height, source_width, source_strides
            )
            noise = None
            if edge_amplitude is not None:
                noise = load_noise(edge_amplitude, edge_grain, edge_seed, which, TYPE)
            colours = None
            if color_gain is not None or color_offset is not None:
                colours = (
                    load_colours(color_gain, which, channels, first_channel, 1.0, GROUP, TYPE),
                    load_colours(color_offset, which, channels, first_channel, 0.0, GROUP, TYPE),
                    lowest,
                    highest,
                )
            corners = (vertices + which * (2 * MOST_VERTICES), tl.load(vertex_count + which).to(tl.int32))
            content = (transform + which * 6, source_now)
            sigma = tl.load(blur_sigma + which).to(TYPE)
            radius = blur_radius(sigma)
            # Without a blur only the distance 0 counts.
            sigma = tl.maximum(sigma, SMALLEST_BLUR)
            cut = blurred_cut_out(
                source,
                row,
                column,
                sigma,
                radius,
                box,
                corners,
                noise,
                content,
                scale,
                colours,
                GROUP,
                CHUNK_ROWS,
                CHUNK_COLUMNS,
                TYPE,
                INDEX,
            )
            level = tl.full((), 1.0, TYPE)
            if strength is not None:
                level = tl.load(strength + which).to(TYPE)
            mode = None
            if blend_mode is not None:
                mode = tl.load(blend_mode + which).to(tl.int32)
            images, covered = blended(images, covered, cut, level, mode, lowest, highest - lowest, GROUP)
            at = next_lane(hit, lane, at, LANES)

    touched = covered > 0
    if group == 0:
        corner = (tl.cast(image, tl.int64) * height + first_row) * width + first_column
        tl.store(opacity + corner + place, tl.minimum(covered, 1.0), mask=exists)
    for channel in tl.static_range(GROUP):
        result = as_pixels(images[channel], PIXEL)
        to = out + first + channel * channel_stride + pixel
        if IN_PLACE:
            tl.store(to, result, mask=exists & touched)
        else:
            if PIXEL == tl.float16 or PIXEL == tl.bfloat16:
                # Untouched pixels keep their bits, those of NaN too, which conversion may have changed.
                kept = ~touched & (images[channel] != images[channel])
                bits = tl.load(target + first + channel * channel_stride + pixel, mask=exists & kept, other=0)
                result = tl.where(kept, bits, result)
            tl.store(to, result, mask=exists)
