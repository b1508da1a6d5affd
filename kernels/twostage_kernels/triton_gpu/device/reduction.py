"""The second step of a value, in a fixed order, and the scaling of a gradient by a number on the device."""

import triton
import triton.language as tl

from twostage_kernels.triton_gpu.device.images import number


@triton.jit(
    do_not_specialize=(
        "samples",
        "strips_of_sample",
        "highest",
        "window_scale",
        "pixel_scale",
        "l1_weight",
        "l1_unit",
    ),
    do_not_specialize_on_alignment=("sums", "scales", "value"),
)
def reduce_kernel(
    sums,  # [samples, strips_of_sample, 2] float64: of deficits and of differences
    scales,  # [samples, 2] or None
    value,  # [1], or [samples] with SAMPLE
    samples,
    strips_of_sample,
    highest: tl.int64,  # this and what follows as `number` reads it
    window_scale: tl.int64,  # what the sums are multiplied by where there are no scales
    pixel_scale: tl.int64,
    l1_weight: tl.int64,
    l1_unit: tl.int64,
    MASKED: tl.constexpr,
    SAMPLE: tl.constexpr,
    LOSS: tl.constexpr,
    BLOCK: tl.constexpr,
    TYPE: tl.constexpr,
):
    """One program, or with SAMPLE one for each sample."""
    begin = tl.cast(tl.program_id(0), tl.int64) * strips_of_sample
    end = begin + strips_of_sample if SAMPLE else tl.cast(samples, tl.int64) * strips_of_sample
    deficits = tl.zeros((BLOCK,), tl.float64)
    differences = tl.zeros((BLOCK,), tl.float64)
    for first in range(begin, end, BLOCK):
        strip = first + tl.arange(0, BLOCK)
        inside = strip < end
        deficit = tl.load(sums + 2 * strip, mask=inside, other=0.0)
        difference = tl.load(sums + 2 * strip + 1, mask=inside, other=0.0)
        if MASKED:
            sample = strip // strips_of_sample
            deficit *= tl.load(scales + 2 * sample, mask=inside, other=0.0).to(tl.float64)
            difference *= tl.load(scales + 2 * sample + 1, mask=inside, other=0.0).to(tl.float64)
        deficits += deficit
        differences += difference
    deficit = tl.sum(deficits)
    difference = tl.sum(differences)
    if not MASKED:
        deficit *= number(window_scale, tl.float64)
        difference *= number(pixel_scale, tl.float64)
    best = number(highest, tl.float64)
    result = best - deficit
    if LOSS:
        weight = number(l1_weight, tl.float64)
        result = (1.0 - weight) * ((1.0 - best) + deficit) + weight * difference / number(l1_unit, tl.float64)
    tl.store(value + tl.program_id(0), result.to(TYPE))


@triton.jit(
    do_not_specialize=("elements_of_sample", "blocks_of_sample"),
    do_not_specialize_on_alignment=("gradient", "factor"),
)
def rescale_kernel(
    gradient,  # [samples, elements_of_sample]
    factor,  # [1], or [samples] with SAMPLE
    elements_of_sample,
    blocks_of_sample,
    SAMPLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Multiply in place; where the factor is 1 no element is touched."""
    sample = tl.program_id(0) // blocks_of_sample
    scale = tl.load(factor + (sample if SAMPLE else 0))
    if scale != 1.0:
        block = tl.cast(tl.program_id(0) % blocks_of_sample, tl.int64)
        element = block * BLOCK + tl.arange(0, BLOCK)
        inside = element < elements_of_sample
        at = gradient + tl.cast(sample, tl.int64) * elements_of_sample + element
        tl.store(at, tl.load(at, mask=inside) * scale, mask=inside)
