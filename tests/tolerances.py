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
    # No score may exceed 1 by more; equal images score 1 to within it.
    "similarity bound": Tolerance(1e-14, 1e-6),
    # Other packages: their Gaussian window is held in float32.
    "peer value": Tolerance(1e-6, 1e-6),
    "peer gradient": Tolerance(1e-6, 1e-5),
    "paste image": Tolerance(1e-12, 1e-5),
    "paste opacity": Tolerance(1e-12, 1e-6),
}


def tolerance(name: str, dtype: torch.dtype) -> float:
    """The bound called ``name`` for images of ``dtype``."""
    return TOLERANCES[name].at(dtype)
