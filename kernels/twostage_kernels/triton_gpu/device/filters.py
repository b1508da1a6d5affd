"""The separable Gaussian over a stream of rows: along the row by shifted loads, down the columns by pending sums.

The sums of a column's windows that wait for further rows stand in tuples, the next to be complete first. A row that
comes in is added to each with the weight it has there while each moves on by one place, in the same instruction.
"""

import triton
import triton.language as tl


@triton.jit
def gaussian_weights(sigma, HALF: tl.constexpr):
    """Weights of the taps at distance 0 .. HALF of a normalised Gaussian."""
    total = 0.0 * sigma + 1.0
    weights = (total,)
    for k in tl.static_range(1, HALF + 1):
        # sigma * sigma would underflow for the smallest sigmas, and the square of the ratio overflow.
        ratio = tl.minimum(k / sigma, 1e4)
        weight = tl.exp(-0.5 * (ratio * ratio))
        total += 2.0 * weight
        weights = weights + (weight,)
    normalised = (weights[0] / total,)
    for k in tl.static_range(1, HALF + 1):
        normalised = normalised + (weights[k] / total,)
    return normalised


@triton.jit
def copies(value, COUNT: tl.constexpr):
    result = (value,)
    for _ in tl.static_range(COUNT - 1):
        result = result + (value,)
    return result


@triton.jit
def enter(sums, value, at_centre, weights, HALF: tl.constexpr):
    """Add a row to the pending sums of the windows that cover it: ``at_centre`` where it is the window's centre row.

    Returns the sum that is complete with it, and those that remain.
    """
    if HALF == 0:
        return weights[0] * at_centre, sums
    complete = sums[0] + weights[HALF] * value
    pending = ()
    for place in tl.static_range(1, 2 * HALF):
        # The weight of tap 2 * HALF - place.
        weight = weights[HALF - place if place < HALF else place - HALF]
        pending = pending + (sums[place] + weight * (at_centre if place == HALF else value),)
    return complete, pending + (weights[HALF] * value,)


@triton.jit
def second_moments(x, y, other_x, other_y, ADDITIVE: tl.constexpr):
    """What is summed of two pixels' deviations, or of one pixel's with itself.

    The additive form needs the variances of both images and their covariance. The product form needs of the
    variances their sum alone, which the variance of the difference x - y and the covariance tell.
    """
    return (x * other_x, y * other_y, x * other_y) if ADDITIVE else ((x - y) * (other_x - other_y), x * other_y)


@triton.jit
def add(values, others):
    result = ()
    for place in tl.static_range(len(values)):
        result = result + (values[place] + others[place],)
    return result


@triton.jit
def subtract(values, others):
    result = ()
    for place in tl.static_range(len(values)):
        result = result + (values[place] - others[place],)
    return result


@triton.jit
def times(values, factor):
    result = ()
    for place in tl.static_range(len(values)):
        result = result + (values[place] * factor,)
    return result


@triton.jit
def row_moments(x, y, near_x, near_y, weights, HALF: tl.constexpr, ADDITIVE: tl.constexpr):
    """Means along the row about the pixel itself, and central second moments.

    ``near_x`` and ``near_y`` point to the pixels in scratch memory.
    """
    mean_x = tl.zeros_like(x)
    mean_y = tl.zeros_like(x)
    seconds = second_moments(mean_x, mean_y, mean_x, mean_y, ADDITIVE)
    for k in tl.static_range(1, HALF + 1):
        left_x = tl.load(near_x - k) - x
        right_x = tl.load(near_x + k) - x
        left_y = tl.load(near_y - k) - y
        right_y = tl.load(near_y + k) - y
        weight = weights[k]
        mean_x += weight * (left_x + right_x)
        mean_y += weight * (left_y + right_y)
        left = second_moments(left_x, left_y, left_x, left_y, ADDITIVE)
        right = second_moments(right_x, right_y, right_x, right_y, ADDITIVE)
        seconds = add(seconds, times(add(left, right), weight))
    return mean_x, mean_y, subtract(seconds, second_moments(mean_x, mean_y, mean_x, mean_y, ADDITIVE))


@triton.jit
def masked_row_moments(
    shift_x, shift_y, near_x, near_y, near_seen, weights, HALF: tl.constexpr, ADDITIVE: tl.constexpr
):
    """Coverage along the row, means about the column's shift, and central second moments.

    What is not seen holds finite values in scratch memory. A row that sees nothing has moments 0.
    """
    coverage = tl.zeros_like(shift_x)
    mean_x = tl.zeros_like(shift_x)
    mean_y = tl.zeros_like(shift_x)
    for k in tl.static_range(-HALF, HALF + 1):
        weight = weights[k if k > 0 else -k] * tl.load(near_seen + k)
        coverage += weight
        mean_x += weight * (tl.load(near_x + k) - shift_x)
        mean_y += weight * (tl.load(near_y + k) - shift_y)
    inverse = 1.0 / tl.where(coverage > 0, coverage, 1.0)
    mean_x *= inverse
    mean_y *= inverse
    zero = tl.zeros_like(shift_x)
    seconds = second_moments(zero, zero, zero, zero, ADDITIVE)
    for k in tl.static_range(-HALF, HALF + 1):
        weight = weights[k if k > 0 else -k] * tl.load(near_seen + k)
        x = (tl.load(near_x + k) - shift_x) - mean_x
        y = (tl.load(near_y + k) - shift_y) - mean_y
        seconds = add(seconds, second_moments(weight * x, weight * y, x, y, ADDITIVE))
    return coverage, mean_x, mean_y, times(seconds, inverse)


@triton.jit
def enter_row(pending, row, weights, HALF: tl.constexpr, ADDITIVE: tl.constexpr, MASKED: tl.constexpr):
    """Add a row's moments to the pending windows, without those of windows whose centre row it is.

    ``row``: coverage, means about the column's shift, central second moments. Returns the sums that are complete, the
    means and the coverage of their centre row, and what remains pending.
    """
    coverage, mean_x, mean_y, centred = row
    sums_x, sums_y, seconds, rows_seen, centres_x, centres_y, centres_seen = pending
    centre_x = centres_x[0] if HALF > 0 else mean_x
    centre_y = centres_y[0] if HALF > 0 else mean_y
    centre_seen = centres_seen[0] if HALF > 0 else coverage
    zero = tl.zeros_like(mean_x)
    if HALF > 0:
        centres_x = centres_x[1:] + (mean_x,)
        centres_y = centres_y[1:] + (mean_y,)
    seen = zero
    sum_x = mean_x
    sum_y = mean_y
    if MASKED:
        if HALF > 0:
            centres_seen = centres_seen[1:] + (coverage,)
        seen, rows_seen = enter(rows_seen, coverage, zero, weights, HALF)
        sum_x *= coverage
        sum_y *= coverage
        centred = times(centred, coverage)
    else:
        # Not 1 - weights[0], of which little may be left.
        for k in tl.static_range(1, HALF + 1):
            seen += 2.0 * weights[k]
    about_shift = add(centred, second_moments(sum_x, sum_y, mean_x, mean_y, ADDITIVE))
    complete_seconds = ()
    pending_seconds = ()
    for place in tl.static_range(len(seconds)):
        second, waiting = enter(seconds[place], about_shift[place], centred[place], weights, HALF)
        complete_seconds = complete_seconds + (second,)
        pending_seconds = pending_seconds + (waiting,)
    sum_x, sums_x = enter(sums_x, sum_x, zero, weights, HALF)
    sum_y, sums_y = enter(sums_y, sum_y, zero, weights, HALF)
    complete = (sum_x, sum_y, complete_seconds, seen)
    pending = (sums_x, sums_y, pending_seconds, rows_seen, centres_x, centres_y, centres_seen)
    return complete, (centre_x, centre_y, centre_seen), pending


@triton.jit
def window_moments(complete, centre, weights, ADDITIVE: tl.constexpr, MASKED: tl.constexpr):
    """Coverage, means about the column's shift and central second moments of whole windows.

    The moments of the other rows and those between them and the centre row are added: neither a centre row that
    weighs nearly all nor one that stands out costs digits.
    """
    sum_x, sum_y, seconds, seen = complete
    centre_x, centre_y, centre_seen = centre
    share = weights[0]
    between = weights[0] * seen
    coverage = seen
    inverse_of_all = seen
    if MASKED:
        coverage = seen + weights[0] * centre_seen
        inverse_of_all = 1.0 / tl.where(coverage > 0, coverage, 1.0)
        share = weights[0] * centre_seen * inverse_of_all
        between = seen * share
    inverse = 1.0 / tl.where(seen > 0, seen, 1.0)
    mean_x = sum_x * inverse
    mean_y = sum_y * inverse
    apart_x = centre_x - mean_x
    apart_y = centre_y - mean_y
    # The same operations for each: equal images keep equal moments.
    seconds = subtract(seconds, second_moments(sum_x, sum_y, mean_x, mean_y, ADDITIVE))
    seconds = add(seconds, second_moments(between * apart_x, between * apart_y, apart_x, apart_y, ADDITIVE))
    mean_x += share * apart_x
    mean_y += share * apart_y
    if MASKED:
        seconds = times(seconds, inverse_of_all)
    return coverage, mean_x, mean_y, seconds


@triton.jit
def share_inside(centre, length, weights, HALF: tl.constexpr):
    """The part of a window's weight that falls on 0 .. length - 1: exactly 1 where all of it does."""
    outside = 0.0 * weights[0] * centre
    for k in tl.static_range(1, HALF + 1):
        outside += tl.where(centre < k, weights[k], 0.0) + tl.where(centre >= length - k, weights[k], 0.0)
    return 1.0 - outside


@triton.jit
def moved_moments(pending, move_x, move_y, weights, HALF: tl.constexpr, ADDITIVE: tl.constexpr, MASKED: tl.constexpr):
    """Pending windows about a shift that has moved by (move_x, move_y)."""
    sums_x, sums_y, seconds, rows_seen, centres_x, centres_y, centres_seen = pending
    new_sums_x = ()
    new_sums_y = ()
    before = ()
    after = ()
    seen = tl.zeros_like(weights[0])
    # From the last place, which has seen the first tap alone, to the first; centre rows are not among the sums.
    for tap in tl.static_range(2 * HALF):
        if tap != HALF:
            seen += weights[HALF - tap if tap < HALF else tap - HALF]
        weight = rows_seen[2 * HALF - 1 - tap] if MASKED else seen
        sum_x = sums_x[2 * HALF - 1 - tap]
        sum_y = sums_y[2 * HALF - 1 - tap]
        moved_x = sum_x - move_x * weight
        moved_y = sum_y - move_y * weight
        new_sums_x = (moved_x,) + new_sums_x
        new_sums_y = (moved_y,) + new_sums_y
        before = (second_moments(move_x, move_y, sum_x, sum_y, ADDITIVE),) + before
        after = (second_moments(moved_x, moved_y, move_x, move_y, ADDITIVE),) + after
    new_seconds = ()
    for kind in tl.static_range(len(seconds)):
        moved = ()
        for place in tl.static_range(2 * HALF):
            moved = moved + (seconds[kind][place] - before[place][kind] - after[place][kind],)
        new_seconds = new_seconds + (moved,)
    new_centres_x = ()
    new_centres_y = ()
    for place in tl.static_range(HALF):
        new_centres_x = new_centres_x + (centres_x[place] - move_x,)
        new_centres_y = new_centres_y + (centres_y[place] - move_y,)
    return new_sums_x, new_sums_y, new_seconds, rows_seen, new_centres_x, new_centres_y, centres_seen
