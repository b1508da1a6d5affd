"""Multi-scale SSIM on top of the single-scale ops."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage_kernels import checks
from twostage_kernels.backends import choose_similarity
from twostage_kernels.functional.similarity import Padding
from twostage_kernels.settings import Settings

# Wang et al. 2003, Sec. 3.2: exponents of the five levels, finest first.
LEVEL_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    *,
    level_weights: Sequence[float] = LEVEL_WEIGHTS,
    sigma: float | Tensor = 1.5,  # pixels of every level: a number, 0-d or [B]
    window_size: int = 11,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: Padding = "valid",
    reduction: str = "mean",
    size_average: bool | None = None,
    backend: str = "auto",
) -> Tensor:
    """Multi-scale structural similarity: contrast * structure of every level, luminance of the coarsest.

    Each level halves the images by averaging 2 x 2 pixels; an odd side is padded with a zero at its beginning and
    the average counts it. For every channel the levels' means, negative ones taken as 0, are raised to their weights
    and multiplied; channels are averaged.

    Args:
        level_weights: exponents, finest level first; their number is the number of levels.
        reduction: "mean" -> scalar, "sample" -> [B].
        size_average: True stands for reduction="mean", False for "sample".

    Other arguments, the result's type and the errors are those of :func:`ssim`.

    Raises:
        ValueError: ``level_weights`` is empty or not finite and above 0; with padding="valid" the coarsest level is
            smaller than the window.

    Source: Wang, Simoncelli & Bovik 2003, "Multi-scale structural similarity for image quality assessment", Eq. (7).
    """
    if size_average is not None:
        reduction = "mean" if size_average else "sample"
    checks.require_choice("reduction", reduction, ("mean", "sample"))
    checks.require_image_pair(prediction, target)
    _require_levels(level_weights, window_size, padding, *prediction.shape[2:])
    checks.require_constants(data_range, k1, k2, 0.0)
    batch, channels = prediction.shape[:2]
    # Every channel is a sample of its own: levels are combined for each channel.
    per_channel = checks.per_sample_sigma(sigma, prediction).repeat_interleave(channels)
    x, y = (image.flatten(0, 1).unsqueeze(1) for image in (prediction, target))
    product: Tensor | None = None
    for level, weight in enumerate(level_weights):
        coarsest = level == len(level_weights) - 1
        settings = Settings(per_channel, None, None, coarsest, window_size, data_range, k1, k2, padding, 0.0)
        score = choose_similarity("ssim", x, settings, backend)(x, y, settings, "sample").clamp_min(0) ** weight
        product = score if product is None else product * score
        if not coarsest:
            x, y = _halved(x), _halved(y)
    assert product is not None
    per_sample = product.view(batch, channels).mean(dim=1)
    return per_sample if reduction == "sample" else per_sample.mean()


def _halved(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, kernel_size=2, padding=(image.shape[2] % 2, image.shape[3] % 2))


def _require_levels(level_weights: Sequence[float], window_size: int, padding: str, height: int, width: int) -> None:
    if not level_weights or not all(weight > 0 and weight < float("inf") for weight in level_weights):
        raise ValueError(f"level_weights is {level_weights!r}; accepted: one finite number above 0 for each level")
    checks.require_window(window_size, padding, height, width)
    for level in range(1, len(level_weights)):
        height, width = (height + 1) // 2, (width + 1) // 2
        if padding == "valid" and min(height, width) < window_size:
            raise ValueError(
                f"level_weights has {len(level_weights)} levels, and level {level + 1} of the images is "
                f"{height}x{width}; accepted with padding='valid': images whose every level is at least "
                f"{window_size}x{window_size} (or fewer levels, a smaller window_size, or padding='same')"
            )
