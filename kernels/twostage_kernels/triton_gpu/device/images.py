"""What the kernels read: pixels, masks, and numbers that keep all their digits."""

import triton
import triton.language as tl


@triton.jit
def number(bits, TYPE: tl.constexpr):
    """A float64 that came as an integer: as a float it would be rounded to float32 on its way."""
    return tl.cast(bits, tl.int64).to(tl.float64, bitcast=True).to(TYPE)


@triton.jit
def is_finite(value):
    return tl.abs(value) < float("inf")


@triton.jit
def is_inside(row, column, height, width):
    return (row >= 0) & (row < height) & (column >= 0) & (column < width)


@triton.jit
def read_row(image, plane, row, column, height, width, TYPE: tl.constexpr):
    """Pixels of a row, 0 outside of the image. ``plane`` is the image's first element."""
    inside = is_inside(row, column, height, width)
    return tl.load(image + plane + row.to(tl.int64) * width + column, mask=inside, other=0.0).to(TYPE)


@triton.jit
def read_mask(mask, plane, row, column, height, width):
    """The mask of a row. What lies outside is seen as the nearest pixel inside."""
    row = tl.minimum(tl.maximum(row, 0), height - 1)
    column = tl.minimum(tl.maximum(column, 0), width - 1)
    return tl.load(mask + plane + row.to(tl.int64) * width + column)


@triton.jit
def visible_mean(image, mask, plane, mask_plane, row, rows, column, height, width, TYPE: tl.constexpr):
    """Mean of the pixels seen in each column from ``row`` on; of all columns where one sees none; or 0."""
    total = tl.zeros(column.shape, TYPE)
    count = tl.zeros(column.shape, TYPE)
    for _ in range(rows):
        seen = read_mask(mask, mask_plane, row, column, height, width)
        pixel = read_row(image, plane, row, column, height, width, TYPE)
        counts = (seen > 0) & is_finite(pixel) & is_inside(row, column, height, width)
        total += tl.where(counts, pixel, 0.0)
        count += tl.where(counts, 1.0, 0.0)
        row += 1
    mean = total / tl.where(count > 0, count, 1.0)
    columns = tl.sum(tl.where(count > 0, 1.0, 0.0), axis=1, keep_dims=True)
    mean_of_all = tl.sum(mean, axis=1, keep_dims=True) / tl.where(columns > 0, columns, 1.0)
    return tl.where(count > 0, mean, mean_of_all)
