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
def row_moments(x, y, near_x, near_y, weights, HALF: tl.constexpr):
    """Means along the row about the pixel itself, and variances and covariance about the mean.

    ``near_x`` and ``near_y`` point to the pixels in scratch memory.
    """
    mean_x = tl.zeros_like(x)
    mean_y = tl.zeros_like(x)
    square_x = tl.zeros_like(x)
    square_y = tl.zeros_like(x)
    product = tl.zeros_like(x)
    for k in tl.static_range(1, HALF + 1):
        left_x = tl.load(near_x - k) - x
        right_x = tl.load(near_x + k) - x
        left_y = tl.load(near_y - k) - y
        right_y = tl.load(near_y + k) - y
        weight = weights[k]
        mean_x += weight * (left_x + right_x)
        mean_y += weight * (left_y + right_y)
        square_x += weight * (left_x * left_x + right_x * right_x)
        square_y += weight * (left_y * left_y + right_y * right_y)
        product += weight * (left_x * left_y + right_x * right_y)
    return mean_x, mean_y, square_x - mean_x * mean_x, square_y - mean_y * mean_y, product - mean_x * mean_y


@triton.jit
def masked_row_moments(shift_x, shift_y, near_x, near_y, near_seen, weights, HALF: tl.constexpr):
    """Coverage along the row, means about the column's shift, and variances and covariance about the mean.

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
    square_x = tl.zeros_like(shift_x)
    square_y = tl.zeros_like(shift_x)
    product = tl.zeros_like(shift_x)
    for k in tl.static_range(-HALF, HALF + 1):
        weight = weights[k if k > 0 else -k] * tl.load(near_seen + k)
        deviation_x = (tl.load(near_x + k) - shift_x) - mean_x
        deviation_y = (tl.load(near_y + k) - shift_y) - mean_y
        square_x += weight * deviation_x * deviation_x
        square_y += weight * deviation_y * deviation_y
        product += weight * deviation_x * deviation_y
    return coverage, mean_x, mean_y, square_x * inverse, square_y * inverse, product * inverse


@triton.jit
def enter_row(pending, row, weights, HALF: tl.constexpr, MASKED: tl.constexpr):
    """Add a row's moments to the pending windows, without those of windows whose centre row it is.

    ``row``: coverage, means about the column's shift, variances and covariance. Returns the sums that are complete,
    the means and the coverage of their centre row, and what remains pending.
    """
    coverage, mean_x, mean_y, variance_x, variance_y, covariance = row
    sums_x, sums_y, squares_x, squares_y, products, rows_seen, centres_x, centres_y, centres_seen = pending
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
        variance_x *= coverage
        variance_y *= coverage
        covariance *= coverage
    else:
        # Not 1 - weights[0], of which little may be left.
        for k in tl.static_range(1, HALF + 1):
            seen += 2.0 * weights[k]
    square_x, squares_x = enter(squares_x, variance_x + sum_x * mean_x, variance_x, weights, HALF)
    square_y, squares_y = enter(squares_y, variance_y + sum_y * mean_y, variance_y, weights, HALF)
    product, products = enter(products, covariance + sum_x * mean_y, covariance, weights, HALF)
    sum_x, sums_x = enter(sums_x, sum_x, zero, weights, HALF)
    sum_y, sums_y = enter(sums_y, sum_y, zero, weights, HALF)
    complete = (sum_x, sum_y, square_x, square_y, product, seen)
    pending = (sums_x, sums_y, squares_x, squares_y, products, rows_seen, centres_x, centres_y, centres_seen)
    return complete, (centre_x, centre_y, centre_seen), pending


@triton.jit
def window_moments(complete, centre, weights, MASKED: tl.constexpr):
    """Coverage, means about the column's shift, variances and covariance of whole windows.

    The variance of the other rows and that between them and the centre row are added: neither a centre row that
    weighs nearly all nor one that stands out costs digits.
    """
    sum_x, sum_y, square_x, square_y, product, seen = complete
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
    # Three times the same operations: equal images keep equal moments.
    variance_x = (square_x - sum_x * mean_x) + between * apart_x * apart_x
    variance_y = (square_y - sum_y * mean_y) + between * apart_y * apart_y
    covariance = (product - sum_x * mean_y) + between * apart_x * apart_y
    mean_x += share * apart_x
    mean_y += share * apart_y
    if MASKED:
        variance_x *= inverse_of_all
        variance_y *= inverse_of_all
        covariance *= inverse_of_all
    return coverage, mean_x, mean_y, variance_x, variance_y, covariance


@triton.jit
def share_inside(centre, length, weights, HALF: tl.constexpr):
    """The part of a window's weight that falls on 0 .. length - 1: exactly 1 where all of it does."""
    outside = 0.0 * weights[0] * centre
    for k in tl.static_range(1, HALF + 1):
        outside += tl.where(centre < k, weights[k], 0.0) + tl.where(centre >= length - k, weights[k], 0.0)
    return 1.0 - outside


@triton.jit
def moved_moments(pending, move_x, move_y, weights, HALF: tl.constexpr, MASKED: tl.constexpr):
    """Pending windows about a shift that has moved by (move_x, move_y)."""
    sums_x, sums_y, squares_x, squares_y, products, rows_seen, centres_x, centres_y, centres_seen = pending
    new_sums_x = ()
    new_sums_y = ()
    new_squares_x = ()
    new_squares_y = ()
    new_products = ()
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
        new_squares_x = (squares_x[2 * HALF - 1 - tap] - move_x * sum_x - move_x * moved_x,) + new_squares_x
        new_squares_y = (squares_y[2 * HALF - 1 - tap] - move_y * sum_y - move_y * moved_y,) + new_squares_y
        new_products = (products[2 * HALF - 1 - tap] - move_x * sum_y - move_y * moved_x,) + new_products
    new_centres_x = ()
    new_centres_y = ()
    for place in tl.static_range(HALF):
        new_centres_x = new_centres_x + (centres_x[place] - move_x,)
        new_centres_y = new_centres_y + (centres_y[place] - move_y,)
    sums = (new_sums_x, new_sums_y, new_squares_x, new_squares_y, new_products)
    return sums + (rows_seen, new_centres_x, new_centres_y, centres_seen)
