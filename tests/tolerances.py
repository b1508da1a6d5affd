"""How far a result may lie from the truth. Every comparison of the ops takes its bound from here, by name.

Errors are absolute. Two quantities are scaled first, so that one bound serves every image:

* a gradient of a mean by (number of elements of the mean) * data_range, the change of one element's score when one
  pixel moves by the whole range; where a scaled gradient exceeds 1 the bound grows with the largest of them,
* a pasted image by its range (1, or 255 for uint8).

Half and bfloat16 images are computed in float32.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """A bound for each precision of the sums."""

    float64: float
    float32: float

    def at(self, dtype: torch.dtype) -> float:
        return self.float64 if dtype == torch.float64 else self.float32


TOLERANCES = {
    # A score: of a pixel, a sample or the mean.
    "similarity value": Tolerance(1e-12, 1e-6),
    "similarity gradient": Tolerance(1e-10, 1e-5),
    # Fused kernels take moments about one shift for a whole tile. Where one image is flat and the other is not, or a
    # window holds one pixel, the true variance is 0 and what rounding leaves of it shows.
    "fused value, single pixel": Tolerance(1e-11, 5e-5),
    "fused gradient, flat beside textured": Tolerance(1e-10, 1e-4),
    # A kernel that streams down the rows takes moments about a pixel of the latest row, five rows from the centre.
    # Where a window is little more than its centre, by its sigma or by a mask, such moments lose digits.
    "streamed value, few pixels": Tolerance(1e-11, 2e-5),
    "streamed gradient, few pixels": Tolerance(1e-10, 5e-5),
    # No score may exceed 1 by more; equal images score 1 to within it.
    "similarity bound": Tolerance(1e-14, 1e-6),
    # A window that sees a few pixels through its mask has moments of few digits.
    "masked value": Tolerance(1e-11, 1e-6),
    "masked gradient": Tolerance(1e-9, 5e-5),
    # Other packages: their Gaussian window is held in float32.
    "peer value": Tolerance(1e-6, 1e-6),
    "peer gradient": Tolerance(1e-6, 1e-5),
    # pytorch-msssim computes in the images' precision, about 0.
    "drop-in value": Tolerance(1e-6, 1e-5),
    "drop-in gradient": Tolerance(1e-6, 1e-4),
    # A fractional power of a level's mean has a slope of up to a few.
    "multi-scale value": Tolerance(1e-11, 5e-6),
    # In units of the largest weight; of a gradient in units of what it can be at the same position.
    "feature distance": Tolerance(1e-14, 1e-6),
    "feature gradient": Tolerance(1e-14, 1e-6),
    "paste image": Tolerance(1e-12, 1e-5),
    "paste opacity": Tolerance(1e-12, 1e-6),
    # Before another package is timed: does it do the same work at all? Its moments may be about zero, in float32, and
    # its polygons may own other edge pixels (the bound is then on the summed difference, in units of all opacity).
    "same work": Tolerance(1e-3, 1e-3),
    "same paste": Tolerance(0.2, 0.2),
    # The loss of a step whose convolutions are in bfloat16 (8 bits), over the first few steps of a training.
    "bf16 loss": Tolerance(2e-2, 2e-2),
    # A detector's score map, in units of its largest value: a GPU convolves with 10 bits (TF32) unless told otherwise.
    "predicted map": Tolerance(2e-2, 2e-2),
}


def tolerance(name: str, dtype: torch.dtype) -> float:
    """The bound called ``name`` for images of ``dtype``."""
    return TOLERANCES[name].at(dtype)


# The native kernels, whose gradients are compared as n * data_range * gradient, n being the number of windows.
# Against the reference in float64, for scores between -1 and 1.
SCORE = {torch.float32: 2e-6, torch.float64: 1e-13}
# The centre pixel of a wide window weighs 1/100 and less; where it stands out, moments about it lose two digits.
WIDE_WINDOW_SCORE = {torch.float32: 1e-5, torch.float64: 1e-11}
# Of the largest gradient, or absolutely where that is below 1.
GRADIENT = {torch.float32: 1e-5, torch.float64: 1e-11}
# Images that lose their digits where moments are taken about 0: absolutely.
HARD_GRADIENT = 1e-5
# Against packages that compute in float32 about 0, or in float64 with another window.
ORACLE_SCORE = 1e-5
ORACLE_GRADIENT = 1e-4
# What a gradient handed back in half precision keeps of its largest value.
HALF_ROUNDING = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
# Weights in float64 after a few steps of Adam on batches whose sums were taken in another order: absolutely.
SHARED_BATCH = 1e-10
