"""How cost grows with an image batch: a fixed part, a part for each pixel, and where that holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.tables import Comparison, three_digits, time

LABEL = "scaling over "
# Cost is called linear as far as a pixel costs at most this many times what it costs at the best size.
LINEAR = 1.2


@dataclass(frozen=True)
class Fit:
    """seconds = fixed + per_pixel * pixels, by least squares of relative errors."""

    axis: str
    pixels: tuple[int, ...]
    seconds: tuple[float, ...]
    fixed: float
    per_pixel: float
    linear: tuple[int, int]
    """The smallest and the largest size, in pixels, between which cost is linear."""

    def sentence(self) -> str:
        low, high = self.linear
        upper = "the largest size tried" if high == self.pixels[-1] else f"{three_digits(high / 1e3)} thousand"
        return (
            f"Over {self.axis}: {time(max(self.fixed, 0))} a call and {three_digits(self.per_pixel * 1e9)} ns a pixel; "
            f"linear to within {LINEAR - 1:.0%} from {three_digits(low / 1e3)} thousand pixels to {upper}."
        )


def fits(found: Sequence[Comparison]) -> list[Fit]:
    """One for every axis that was tried."""
    axes: dict[str, list[Comparison]] = {}
    for comparison in found:
        if comparison.task.startswith(LABEL):
            axes.setdefault(comparison.task.removeprefix(LABEL), []).append(comparison)
    return [_fit(axis, sorted(points, key=lambda point: point.pixels)) for axis, points in axes.items()]


def _fit(axis: str, points: Sequence[Comparison]) -> Fit:
    pixels = np.array([point.pixels for point in points], dtype=np.float64)
    seconds = np.array([point.ours["seconds"] for point in points], dtype=np.float64)
    terms = np.stack((np.ones_like(pixels), pixels), axis=1) / seconds[:, None]
    (fixed, per_pixel), *_ = np.linalg.lstsq(terms, np.ones_like(pixels), rcond=None)
    cost = seconds / pixels
    fair = cost <= LINEAR * cost.min()
    first = last = int(cost.argmin())
    while first > 0 and fair[first - 1]:
        first -= 1
    while last + 1 < len(points) and fair[last + 1]:
        last += 1
    sizes = tuple(point.pixels for point in points)
    return Fit(axis, sizes, tuple(seconds.tolist()), float(fixed), float(per_pixel), (sizes[first], sizes[last]))
