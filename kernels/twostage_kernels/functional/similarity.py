"""AW-SSIM and SSIM, as similarities and as losses."""

from typing import Any, Literal

from torch import Tensor

from twostage_kernels import checks
from twostage_kernels.backends import choose_similarity
from twostage_kernels.settings import Settings

Padding = Literal["valid", "same"]
Reduction = Literal["mean", "sample", "none"]
Weights = tuple[float, float, float]


def aw_ssim(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    *,
    sigma: float | Tensor = 1.5,  # pixels: a number, 0-d or [B]
    weights: Weights = (1 / 3, 1 / 3, 1 / 3),
    mask: Tensor | None = None,  # [B, 1, H, W], bool or weights of at least 0
    window_size: int = 11,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: Padding = "valid",
    reduction: Reduction = "mean",
    backend: str = "auto",
) -> Tensor:
    """Adaptive weighted structural similarity: alpha * luminance + beta * contrast + gamma * structure.

    Args:
        prediction, target: images in [0, data_range]; float16, bfloat16, float32 or float64, any strides. Local sums
            are held in float32 (float64 for float64), under autocast too.
        sigma: standard deviation of the Gaussian window in pixels. A tensor stays on its device.
        weights: alpha, beta, gamma. With weights summing to 1, equal images score 1.
        mask: what counts, and how much. A pixel enters a window's moments by its Gaussian weight times its mask,
            divided by the sum of these over the window (the coverage); windows enter a mean by their coverage. What
            lies under 0 changes nothing, NaN included; where nothing is seen the score is that of equal images. With
            padding="same" the border's mask goes on beyond it.
        window_size: taps of the window in each direction, odd.
        padding: "valid" scores only whole windows, [H - window_size + 1, W - window_size + 1] of them; "same" pads
            with zeros and scores every pixel.
        reduction: "mean" -> scalar, "sample" -> [B], "none" -> the map [B, C, H', W'].
        backend: "auto" or one of ``available_backends("aw_ssim", device)``.

    Returns:
        The similarity, float32 (float64 for float64 images). Differentiable in ``prediction`` and ``target``; ``sigma``
        and ``mask`` get no gradient. The mean of an empty batch is NaN, as torch's is.

    Raises:
        TypeError: an image is no tensor, or its dtype is not accepted or differs from the other's; ``sigma``,
            ``data_range``, ``k1`` or ``k2`` is no number, or a ``sigma`` tensor is not floating-point; ``mask`` is no
            tensor of bool or floating dtype.
        ValueError: a shape, device, ``sigma``, ``weights``, ``mask``, ``window_size``, ``data_range``, ``k1``, ``k2``,
            ``padding``, ``reduction`` or ``backend`` is not accepted.
        RuntimeError: the named backend is not available here.

    Source: Shiferaw & Yao 2024, Eq. (2)-(8), with the window centred.
    """
    checks.require_choice("reduction", reduction, ("mean", "sample", "none"))
    numbers = weights, window_size, data_range, k1, k2, padding, 0.0
    settings = _check("additive", prediction, target, sigma, mask, *numbers)
    return choose_similarity("aw_ssim", prediction, settings, backend)(prediction, target, settings, reduction)


def ssim(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    *,
    sigma: float | Tensor = 1.5,  # pixels: a number, 0-d or [B]
    mask: Tensor | None = None,  # [B, 1, H, W], bool or weights of at least 0
    window_size: int = 11,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: Padding = "valid",
    reduction: Reduction = "mean",
    size_average: bool | None = None,
    backend: str = "auto",
) -> Tensor:
    """Structural similarity, the classic product luminance * contrast * structure.

    Arguments, result and errors are those of :func:`aw_ssim`, without ``weights``. ``size_average`` is for calls
    written for other packages: True stands for reduction="mean", False for "sample".

    Source: Wang et al. 2004; Shiferaw & Yao 2024, Eq. (6) with all exponents 1.
    """
    if size_average is not None:
        reduction = "mean" if size_average else "sample"
    checks.require_choice("reduction", reduction, ("mean", "sample", "none"))
    numbers = None, window_size, data_range, k1, k2, padding, 0.0
    settings = _check("product", prediction, target, sigma, mask, *numbers)
    return choose_similarity("ssim", prediction, settings, backend)(prediction, target, settings, reduction)


def aw_ssim_loss(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    *,
    sigma: float | Tensor = 1.5,
    weights: Weights = (1 / 3, 1 / 3, 1 / 3),
    mask: Tensor | None = None,
    window_size: int = 11,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: Padding = "valid",
    l1_weight: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """1 - mean :func:`aw_ssim`: a scalar to minimise, 0 for equal images when ``weights`` sum to 1.

    With ``l1_weight`` w in [0, 1]: (1 - w) * (1 - mean) + w * mean |prediction - target| / data_range, in the same
    pass; pixels enter the second mean by their mask. Other arguments and errors are those of :func:`aw_ssim`.
    """
    numbers = weights, window_size, data_range, k1, k2, padding, l1_weight
    settings = _check("additive", prediction, target, sigma, mask, *numbers)
    return choose_similarity("aw_ssim", prediction, settings, backend)(prediction, target, settings, "loss")


def ssim_loss(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    *,
    sigma: float | Tensor = 1.5,
    mask: Tensor | None = None,
    window_size: int = 11,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: Padding = "valid",
    l1_weight: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """1 - mean :func:`ssim`: a scalar to minimise. Arguments and errors are those of :func:`aw_ssim_loss`."""
    numbers = None, window_size, data_range, k1, k2, padding, l1_weight
    settings = _check("product", prediction, target, sigma, mask, *numbers)
    return choose_similarity("ssim", prediction, settings, backend)(prediction, target, settings, "loss")


# What was checked before, by what was given: for a small image, checking it again takes as long as the kernel.
_CHECKED: dict[Any, Settings] = {}
_MOST_CHECKED = 256


def _check(
    form: Literal["additive", "product"],
    prediction: Tensor,
    target: Tensor,
    sigma: float | Tensor,
    mask: Tensor | None,
    weights: Weights | None,
    window_size: int,
    data_range: float,
    k1: float,
    k2: float,
    padding: str,
    l1_weight: float,
) -> Settings:
    checks.require_image_pair(prediction, target)
    key = None
    if mask is None and type(sigma) is float and type(window_size) is int and checks.can_be_read(prediction):
        # Equal numbers of other types are as good, but for the window's size.
        numbers = form, sigma, weights, window_size, data_range, k1, k2, padding, l1_weight
        key = numbers, prediction.shape, prediction.dtype
        try:
            known = _CHECKED.get(key)
        except TypeError:  # something without a hash: a list of weights, or what is refused below
            key = known = None
        if known is not None:
            return known
    weights_given, weights = weights, checks.require_weights(weights) if form == "additive" else None
    checks.require_window(window_size, padding, prediction.shape[2], prediction.shape[3])
    checks.require_constants(data_range, k1, k2, l1_weight)
    sigma = checks.per_sample_sigma(sigma, prediction)
    if mask is not None:
        mask = checks.checked_mask(mask, prediction)
    settings = Settings(sigma, mask, weights, True, window_size, data_range, k1, k2, padding, l1_weight)
    if key is not None and _lasts(weights_given, sigma):
        if len(_CHECKED) >= _MOST_CHECKED:
            _CHECKED.clear()
        _CHECKED[key] = settings
    return settings


def _lasts(weights: Weights | None, sigma: Tensor) -> bool:
    """Whether settings serve other calls: weights that are tensors may change, and inference tensors stay inside."""
    return all(type(weight) in (float, int) for weight in weights or ()) and not sigma.is_inference()
