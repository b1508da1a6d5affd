"""How far features are from each other: a layer of LPIPS."""

from torch import Tensor

from twostage_kernels import checks
from twostage_kernels.backends import choose_backend


def feature_distance(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    weights: Tensor,  # [C], or [1, C, 1, 1] as LPIPS has it
    *,
    backend: str = "auto",
) -> Tensor:
    """Weighted squared distance between features scaled to unit length over their channels, at every position.

    sum_c weights_c * (prediction_c / |prediction| - target_c / |target|)^2, with |v| = sqrt(sum_c v_c^2 + 1e-10): a
    layer of LPIPS, normalised, subtracted, weighed and summed in one pass. Features are read in the memory format
    ``channels_last`` and copied to it where they are not in it.

    Args:
        prediction, target: features; float16, bfloat16, float32 or float64, each of its own dtype unless one is
            float64. Sums are held in float32 (float64 for float64), under autocast too. Features of unit length stay
            as they are.
        weights: of the channels, floating-point.
        backend: "auto" or one of ``available_backends("feature_distance", device)``.

    Returns:
        [B, 1, H, W], float32 (float64 for float64 features). Differentiable, once, in ``prediction`` alone, whose
        gradient is in the memory format ``channels_last``.

    Raises:
        TypeError: an argument is no tensor, or its dtype is not accepted, or one of the features is float64 alone.
        ValueError: a shape, device or ``backend`` is not accepted.
        RuntimeError: the named backend is not available here.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", Eq. (1).
    """
    checks.require_features(prediction, target)
    weights = checks.channel_weights(weights, prediction)
    distance: Tensor = choose_backend("feature_distance", prediction.device, backend)(prediction, target, weights)
    return distance
