"""Similarity of two images and its gradients in one pass: strips of columns, streamed from top to bottom.

Each thread owns a column. What a window needs of its row, the thread loads from a row of scratch memory that the
threads of its program have just written and that stays in the nearest cache; what it needs of its column stands in
registers. A pixel is read from the image, scored, differentiated, and its gradient written 2 * HALF + 1 rows later.

Moments along a row are about the pixel itself. Down a column they are about a shift, one of its latest pixels, which
moves on every STRETCH rows.
"""

import triton
import triton.language as tl

from twostage_kernels.triton_gpu.device.derivatives import (
    enter_windows,
    gathered_gradients,
    moved_derivatives,
    store_derivatives,
    window_derivatives,
)
from twostage_kernels.triton_gpu.device.filters import (
    copies,
    enter_row,
    gaussian_weights,
    masked_row_moments,
    moved_moments,
    row_moments,
    share_inside,
    window_moments,
)
from twostage_kernels.triton_gpu.device.images import is_finite, number, read_mask, read_row, visible_mean
from twostage_kernels.triton_gpu.device.window_score import window_score

# Of a window that sees less than this through its mask nothing can be told.
LEAST_COVERAGE = tl.constexpr(1e-8)
# Nothing is compiled anew because a size is 1 or a multiple of 16, or an address a multiple of 16.
_POINTERS = (
    "prediction",
    "target",
    "sigma",
    "mask",
    "scales",
    "upstream",
    "scores",
    "gradient_x",
    "gradient_y",
    "sums",
    "scratch",
)
_SIZES = (
    "channels",
    "height",
    "width",
    "strips",
    "strips_across",
    "segments",
    "rows",
    "first_row",
    "stretches",
)
_NUMBERS = ("alpha", "beta", "gamma", "c1", "c2", "noise", "window_factor", "pixel_factor")


@triton.jit
def read_images(prediction, target, mask, planes, row, column, height, width, MASKED: tl.constexpr, TYPE: tl.constexpr):
    """Both images' pixels of a row and, with a mask, how far each is seen."""
    x = read_row(prediction, planes[0], row, column, height, width, TYPE)
    y = read_row(target, planes[0], row, column, height, width, TYPE)
    seen = x
    if MASKED:
        seen = read_mask(mask, planes[1], row, column, height, width)
    return x, y, seen


@triton.jit
def moments_of_row(
    x,
    y,
    seen,
    shift_x,
    shift_y,
    near,
    FIELD: tl.constexpr,
    weights,
    HALF: tl.constexpr,
    ADDITIVE: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Coverage, means about the column's shift and central second moments of the row under the window."""
    if MASKED:
        return masked_row_moments(shift_x, shift_y, near, near + FIELD, near + 2 * FIELD, weights, HALF, ADDITIVE)
    mean_x, mean_y, seconds = row_moments(x, y, near, near + FIELD, weights, HALF, ADDITIVE)
    return seen, (x - shift_x) + mean_x, (y - shift_y) + mean_y, seconds


@triton.jit
def pixel_gradients(pixel, by_x, by_y, by_window, by_pixel, SCALED, L1: tl.constexpr, MASKED: tl.constexpr):
    """The gradient by a row of pixels, given what their windows' scores contribute."""
    x, y, seen = pixel
    if SCALED:
        by_x *= by_window
        by_y *= by_window
    if L1:
        sign = tl.where(x > y, by_pixel, 0.0) - tl.where(x < y, by_pixel, 0.0)
        by_x += sign
        by_y -= sign
    if MASKED:
        by_x = tl.where(seen > 0, by_x * seen, 0.0)
        by_y = tl.where(seen > 0, by_y * seen, 0.0)
    return by_x, by_y


@triton.jit(do_not_specialize=(*_SIZES, *_NUMBERS), do_not_specialize_on_alignment=_POINTERS)
def similarity_kernel(
    prediction,  # [B, C, H, W]
    target,  # [B, C, H, W]
    sigma,  # [B]
    mask,  # [B, 1, H, W] or None
    scales,  # [B, 2] or None: with a mask, of a reduced value
    upstream,  # [B, C, H', W'] or None
    scores,  # [B, C, H', W'] or None
    gradient_x,  # [B, C, H, W] or None
    gradient_y,  # [B, C, H, W] or None
    sums,  # [strips, 2] float64, with VALUE: of the windows' deficits and of the pixels' differences
    scratch,  # [programs, 2, FIELDS, G, N + 2 * MARGIN]
    channels,
    height,
    width,
    strips,  # in all
    strips_across,
    segments,  # strips below each other
    rows,  # of a strip
    first_row,  # the first row that is read, from the strip's first
    stretches,
    alpha: tl.int64,  # this and what follows as `number` reads it
    beta: tl.int64,
    gamma: tl.int64,
    c1: tl.int64,
    c2: tl.int64,
    noise: tl.int64,
    window_factor: tl.int64,  # the value's derivative by a window's score; the sample's scale comes on top
    pixel_factor: tl.int64,  # the same by a pixel's absolute difference
    FORM: tl.constexpr,  # "additive", "product" or "contrast-structure"
    SAME: tl.constexpr,  # zeros around the image
    MASKED: tl.constexpr,
    UPSTREAM: tl.constexpr,
    MAP: tl.constexpr,
    VALUE: tl.constexpr,
    L1: tl.constexpr,
    GRADIENTS: tl.constexpr,  # 0, 1 (of x alone) or 2
    HALF: tl.constexpr,  # taps on either side of the window's centre
    G: tl.constexpr,  # strips of a program
    N: tl.constexpr,  # columns of a strip
    MARGIN: tl.constexpr,
    STRETCH: tl.constexpr,
    TYPE: tl.constexpr,
):
    REACH: tl.constexpr = 2 * HALF if GRADIENTS > 0 else HALF
    LEAD: tl.constexpr = 0 if SAME else HALF
    # Zeros beyond the left border are seen as far as the border is: such columns need a thread.
    LEFT: tl.constexpr = HALF if SAME and MASKED else 0
    PITCH: tl.constexpr = N + 2 * MARGIN
    FIELD: tl.constexpr = G * PITCH
    PIXEL_FIELDS: tl.constexpr = 3 if MASKED else 2
    FIELDS: tl.constexpr = PIXEL_FIELDS + (0 if GRADIENTS == 0 else 5 if GRADIENTS == 1 else 7)
    PENDING: tl.constexpr = 2 * HALF if HALF > 0 else 1
    DELAYED: tl.constexpr = HALF if HALF > 0 else 1
    ADDITIVE: tl.constexpr = FORM == "additive"
    BOTH: tl.constexpr = GRADIENTS == 2

    # Where this program's strips lie, and which columns of them are whose.
    lane = tl.arange(0, N)[None, :]
    group = tl.arange(0, G)[:, None]
    strip = tl.program_id(0) * G + group
    real = strip < strips
    place = tl.where(real, strip, 0)
    across = place % strips_across
    plane = place // (strips_across * segments)
    row_begin = ((place // strips_across) % segments) * rows
    row_end = tl.where(real, tl.minimum(row_begin + rows, height), row_begin)
    sample = plane // channels
    column = across * (N - 2 * REACH) - LEFT + lane
    own_column = (lane >= tl.where(across > 0, REACH, 0)) & (column >= 0) & (column < width)
    own_column = own_column & ((lane < N - REACH) | (across == strips_across - 1))
    scored_column = (column >= LEAD) & (column < width - LEAD)
    first_window = tl.maximum(row_begin - HALF, LEAD)
    last_window = tl.minimum(row_end + HALF, height - LEAD)
    pixels = plane.to(tl.int64) * height * width
    planes = (pixels, sample.to(tl.int64) * height * width)
    map_width = width - 2 * LEAD
    map_pixels = plane.to(tl.int64) * (height - 2 * LEAD) * map_width

    constants = (
        number(alpha, TYPE),
        number(beta, TYPE),
        number(gamma, TYPE),
        number(c1, TYPE),
        number(c2, TYPE),
        number(noise, TYPE),
    )
    highest = constants[0] + constants[1] + constants[2] if ADDITIVE else 1.0
    by_window = number(window_factor, TYPE)
    by_pixel = number(pixel_factor, TYPE)
    if scales is not None:
        by_window *= tl.load(scales + 2 * sample)
        by_pixel *= tl.load(scales + 2 * sample + 1)
    weights = gaussian_weights(tl.load(sigma + sample), HALF)
    # The mean of a flat image's window, divided by its level, where zeros are part of it whatever its row.
    on_image = share_inside(column, width, weights, HALF) * share_inside(height // 2, height, weights, HALF)

    zero = tl.zeros((G, N), TYPE)
    own = scratch + tl.program_id(0).to(tl.int64) * (2 * FIELDS * FIELD) + group * PITCH + MARGIN + lane
    for field in range(2 * FIELDS):
        tl.store(own + field * FIELD - MARGIN, zero, mask=lane < MARGIN)
        tl.store(own + field * FIELD + MARGIN, zero, mask=lane >= N - MARGIN)

    row = row_begin + first_row
    shift_x = zero
    shift_y = zero
    if MASKED:
        count = stretches * STRETCH
        shift_x = visible_mean(prediction, mask, planes[0], planes[1], row, count, column, height, width, TYPE)
        shift_y = visible_mean(target, mask, planes[0], planes[1], row, count, column, height, width, TYPE)
    following = read_images(prediction, target, mask, planes, row, column, height, width, MASKED, TYPE)

    # What waits for further rows; whatever is not used of it takes no register.
    wait = copies(zero, PENDING)
    wait_if_masked = copies(zero, PENDING if MASKED else 1)
    centres = copies(zero, DELAYED)
    centres_if_masked = copies(zero, DELAYED if MASKED else 1)
    pending = (wait, wait, copies(wait, 3 if ADDITIVE else 2), wait_if_masked, centres, centres, centres_if_masked)
    wait_back = copies(zero, PENDING if GRADIENTS > 0 else 1)
    wait_both = copies(zero, PENDING if BOTH else 1)
    pending_back = (wait_back, wait_back, wait_back, wait_both, wait_both)
    complete_back = (zero, zero, zero, zero, zero)

    deficits = tl.zeros((G, N), tl.float64)
    differences = tl.zeros((G, N), tl.float64)
    turn = 0
    for _ in range(stretches):
        # The shift moves on. Below the image it stays: derivatives still go back to pixels above.
        next_x, next_y, next_seen = following
        usable_x = is_finite(next_x) & (row < height)
        usable_y = is_finite(next_y) & (row < height)
        if MASKED:
            usable_x = usable_x & (next_seen > 0)
            usable_y = usable_y & (next_seen > 0)
        if SAME:
            next_x *= on_image
            next_y *= on_image
        move_x = tl.where(usable_x, next_x - shift_x, 0.0)
        move_y = tl.where(usable_y, next_y - shift_y, 0.0)
        back_x = shift_x
        back_y = shift_y
        shift_x = tl.where(usable_x, next_x, shift_x)
        shift_y = tl.where(usable_y, next_y, shift_y)
        if HALF > 0:
            pending = moved_moments(pending, move_x, move_y, weights, HALF, ADDITIVE, MASKED)
            # Windows of one pixel: complete derivatives stay about the shift they have, that pixel.
            back_x = shift_x
            back_y = shift_y
            if GRADIENTS > 0:
                pending_back, complete_back = moved_derivatives(pending_back, complete_back, move_x, move_y, HALF, BOTH)

        deficit_of_stretch = zero
        difference_of_stretch = zero
        for _ in range(STRETCH):
            x, y, seen = following
            if MASKED:
                x = tl.where(seen > 0, x, shift_x)
                y = tl.where(seen > 0, y, shift_y)
            near = own + turn * (FIELDS * FIELD)
            near_back = near + PIXEL_FIELDS * FIELD
            tl.store(near, x)
            tl.store(near + FIELD, y)
            if MASKED:
                tl.store(near + 2 * FIELD, seen)
            if GRADIENTS > 0:
                store_derivatives(near_back, complete_back, back_x, back_y, FIELD, BOTH)
            # Two rows of scratch memory take turns, so that one barrier a row suffices.
            tl.debug_barrier()
            following = read_images(prediction, target, mask, planes, row + 1, column, height, width, MASKED, TYPE)

            # The row of windows that this row of pixels completes.
            row_under_window = moments_of_row(
                x, y, seen, shift_x, shift_y, near, FIELD, weights, HALF, ADDITIVE, MASKED
            )
            complete, centre, pending = enter_row(pending, row_under_window, weights, HALF, ADDITIVE, MASKED)
            coverage, mean_x, mean_y, seconds = window_moments(complete, centre, weights, ADDITIVE, MASKED)
            deficit, derivatives = window_score(shift_x, shift_y, mean_x, mean_y, seconds, constants, FORM)
            window = row - HALF
            exists = scored_column & (window >= first_window) & (window < last_window)
            owned = exists & own_column & (window >= row_begin) & (window < row_end)
            differentiable = exists
            if MASKED:
                differentiable = exists & (coverage >= LEAST_COVERAGE)
                deficit = tl.where(coverage >= LEAST_COVERAGE, deficit, 0.0)
            at = map_pixels + (window - LEAD).to(tl.int64) * map_width + (column - LEAD)
            if MAP:
                tl.store(scores + at, highest - deficit, mask=owned)
            if VALUE:
                deficit_of_stretch += tl.where(owned, deficit * coverage if MASKED else deficit, 0.0)
            if L1 and VALUE:
                difference = tl.abs(x - y)
                counts = own_column & (row >= row_begin) & (row < row_end)
                if MASKED:
                    difference = tl.where(seen > 0, difference * seen, 0.0)
                difference_of_stretch += tl.where(counts, difference, 0.0)

            if GRADIENTS > 0:
                # The derivatives in scratch memory are complete for this row of pixels.
                done = row - 2 * HALF - 1
                pixel = read_images(prediction, target, mask, planes, done, column, height, width, MASKED, TYPE)
                by_x, by_y = gathered_gradients(pixel[0], pixel[1], near_back, FIELD, weights, HALF, BOTH)
                by_x, by_y = pixel_gradients(pixel, by_x, by_y, by_window, by_pixel, not UPSTREAM, L1, MASKED)
                to = pixels + done.to(tl.int64) * width + column
                wanted = own_column & (done >= row_begin) & (done < row_end)
                tl.store(gradient_x + to, by_x, mask=wanted)
                if BOTH:
                    tl.store(gradient_y + to, by_y, mask=wanted)
                factor = mean_x
                if UPSTREAM:
                    factor = tl.load(upstream + at, mask=exists, other=0.0)
                    if MASKED:
                        factor = factor / tl.where(differentiable, coverage, 1.0)
                windows = window_derivatives(derivatives, mean_x, mean_y, factor, differentiable, BOTH, UPSTREAM)
                complete_back, pending_back = enter_windows(pending_back, windows, weights, HALF, BOTH)
            if HALF == 0:
                back_x = shift_x
                back_y = shift_y
            row += 1
            turn = 1 - turn
        if VALUE:
            deficits += deficit_of_stretch.to(tl.float64)
        if L1 and VALUE:
            differences += difference_of_stretch.to(tl.float64)

    if VALUE:
        tl.store(sums + 2 * strip, tl.sum(deficits, axis=1, keep_dims=True), mask=real)
        tl.store(sums + 2 * strip + 1, tl.sum(differences, axis=1, keep_dims=True), mask=real)
