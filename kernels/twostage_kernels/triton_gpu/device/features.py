"""Distances between features of unit length, and their gradient."""

import triton
import triton.language as tl


@triton.jit
def _features(
    features,  # [positions, channels]
    position,
    channel,
    positions,
    channels: tl.constexpr,
    TYPE: tl.constexpr,
):
    """Those of some positions and channels, in TYPE; 0 beyond the last."""
    at = features + position[:, None] * channels + channel[None, :]
    inside = (position[:, None] < positions) & (channel[None, :] < channels)
    return tl.load(at, mask=inside, other=0.0).to(TYPE)


@triton.jit
def _inverse_length(features, position, positions, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, TYPE: tl.constexpr):
    # Added to a squared length: features that are all zero stay so.
    squares = tl.full(position.shape, 1e-10, TYPE)
    for first in range(0, CHANNELS, BLOCK):
        own = _features(features, position, first + tl.arange(0, BLOCK), positions, CHANNELS, TYPE)
        squares += tl.sum(own * own, axis=1)
    return 1.0 / tl.sqrt(squares)


@triton.jit(
    do_not_specialize=("positions",),
    do_not_specialize_on_alignment=("weights", "distance", "upstream"),
)
def feature_kernel(
    prediction,  # [positions, CHANNELS]
    target,  # [positions, CHANNELS]
    weights,  # [CHANNELS]
    distance,  # [positions], or None with upstream
    upstream,  # [positions] or None
    gradient,  # [positions, CHANNELS] with upstream
    positions,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
    BLOCK: tl.constexpr,
    TYPE: tl.constexpr,
):
    """POSITIONS positions by a program, BLOCK channels at a time: what is read again is near by then."""
    position = tl.cast(tl.program_id(0), tl.int64) * POSITIONS + tl.arange(0, POSITIONS)
    scale = _inverse_length(prediction, position, positions, CHANNELS, BLOCK, TYPE)
    ratio = _inverse_length(target, position, positions, CHANNELS, BLOCK, TYPE) / scale
    total = tl.zeros((POSITIONS,), TYPE)
    for first in range(0, CHANNELS, BLOCK):
        channel = first + tl.arange(0, BLOCK)
        weight = tl.load(weights + channel, mask=channel < CHANNELS, other=0.0)
        own = _features(prediction, position, channel, positions, CHANNELS, TYPE)
        other = _features(target, position, channel, positions, CHANNELS, TYPE)
        difference = scale[:, None] * (own - ratio[:, None] * other)  # exactly 0 where both are equal
        weighted = weight[None, :] * difference
        if upstream is None:
            total += tl.sum(weighted * difference, axis=1)
        else:
            total += tl.sum(weighted * (scale[:, None] * own), axis=1)
    if upstream is None:
        tl.store(distance + position, total, mask=position < positions)
    else:
        # d unit_k / d feature_c = ((1 where k is c) - unit_k * unit_c) * scale
        factor = 2.0 * scale * tl.load(upstream + position, mask=position < positions, other=0.0)
        for first in range(0, CHANNELS, BLOCK):
            channel = first + tl.arange(0, BLOCK)
            weight = tl.load(weights + channel, mask=channel < CHANNELS, other=0.0)
            own = _features(prediction, position, channel, positions, CHANNELS, TYPE)
            other = _features(target, position, channel, positions, CHANNELS, TYPE)
            difference = scale[:, None] * (own - ratio[:, None] * other)
            slope = factor[:, None] * (weight[None, :] * difference - total[:, None] * (scale[:, None] * own))
            at = gradient + position[:, None] * CHANNELS + channel[None, :]
            inside = (position[:, None] < positions) & (channel[None, :] < CHANNELS)
            tl.store(at, slope.to(gradient.dtype.element_ty), mask=inside)
