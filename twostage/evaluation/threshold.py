"""The decision threshold, from normal images alone."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

from twostage.errors import ConfigError, DataError


def threshold_from_normals(scores: Tensor | npt.NDArray[np.floating], quantile: float) -> float:
    """The smallest of ``scores`` such that at least a share ``quantile`` of them lies at or below it.

    What scores above it is called anomalous. With few scores and a high quantile it is their maximum. It is one of the
    scores, exactly: nothing is interpolated.

    Args:
        scores: any shape, of held-out normal images (or of their pixels).
        quantile: above 0, at most 1.

    Raises:
        ConfigError: ``quantile`` is outside (0, 1].
        DataError: there are no scores, or some are not finite.
    """
    if not 0 < quantile <= 1:
        raise ConfigError(f"quantile is {quantile!r}; accepted: above 0, at most 1")
    array = scores.detach().cpu().double().numpy() if isinstance(scores, Tensor) else scores
    values = np.asarray(array, dtype=np.float64).ravel()
    if len(values) == 0:
        raise DataError("there are no scores of normal images to take a threshold from; accepted: at least one")
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise DataError(f"{bad} of {len(values)} scores of normal images are not finite; accepted: finite numbers")
    # Shares are compared as floats: 0.07 of 100 scores is 7 of them, though 0.07 * 100 is above 7 in float64.
    rank = int(np.searchsorted(np.arange(1, len(values) + 1) / len(values), quantile))
    return float(np.partition(values, rank)[rank])
