"""The public ops: docstring, checks, precision, reduction. What runs underneath is chosen in ``backends``."""

from typing import Literal

import torch
from torch import Tensor

from twostage_kernels import checks
from twostage_kernels.backends import choose_backend

Padding = Literal["valid", "same"]
Reduction = Literal["mean", "sample", "none"]
Weights = tuple[float, float, float]


def aw_ssim(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    *,
    sigma: float | Tensor = 1.5,  # pixels: a number, 0-d or [B]
    weights: Weights = (1 / 3, 1 / 3, 1 / 3),
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
        window_size: taps of the window in each direction, odd.
        padding: "valid" scores only whole windows, [H - window_size + 1, W - window_size + 1] of them; "same" pads
            with zeros and scores every pixel.
        reduction: "mean" -> scalar, "sample" -> [B], "none" -> the map [B, C, H', W'].
        backend: "auto" or one of ``available_backends("aw_ssim", device)``.

    Returns:
        The similarity, float32 (float64 for float64 images). Differentiable in ``prediction`` and ``target``; ``sigma``
        gets no gradient.

    Raises:
        TypeError: an image is no tensor, or its dtype is not accepted or differs from the other's; ``sigma``,
            ``data_range``, ``k1`` or ``k2`` is no number, or a ``sigma`` tensor is not floating-point.
        ValueError: a shape, device, ``sigma``, ``weights``, ``window_size``, ``data_range``, ``k1``, ``k2``,
            ``padding``, ``reduction`` or ``backend`` is not accepted.
        RuntimeError: the named backend is not available here.

    Source: Shiferaw & Yao 2024, Eq. (2)-(8), with the window centred.
    """
    weights = checks.require_weights(weights)
    sigma = _check_similarity(prediction, target, sigma, window_size, data_range, k1, k2, padding, reduction)
    score = choose_backend("aw_ssim", prediction.device, backend)
    result: Tensor = score(prediction, target, sigma, weights, window_size, data_range, k1, k2, padding, reduction)
    return result


def ssim(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    *,
    sigma: float | Tensor = 1.5,  # pixels: a number, 0-d or [B]
    window_size: int = 11,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: Padding = "valid",
    reduction: Reduction = "mean",
    backend: str = "auto",
) -> Tensor:
    """Structural similarity, the classic product luminance * contrast * structure.

    Arguments, result and errors are those of :func:`aw_ssim`, without ``weights``.

    Source: Wang et al. 2004; Shiferaw & Yao 2024, Eq. (6) with all exponents 1.
    """
    sigma = _check_similarity(prediction, target, sigma, window_size, data_range, k1, k2, padding, reduction)
    score = choose_backend("ssim", prediction.device, backend)
    result: Tensor = score(prediction, target, sigma, None, window_size, data_range, k1, k2, padding, reduction)
    return result


def aw_ssim_loss(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    *,
    sigma: float | Tensor = 1.5,
    weights: Weights = (1 / 3, 1 / 3, 1 / 3),
    window_size: int = 11,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: Padding = "valid",
    backend: str = "auto",
) -> Tensor:
    """1 - mean :func:`aw_ssim`: a scalar to minimise, 0 for equal images when ``weights`` sum to 1.

    Arguments and errors are those of :func:`aw_ssim`.
    """
    weights = checks.require_weights(weights)
    sigma = _check_similarity(prediction, target, sigma, window_size, data_range, k1, k2, padding, "mean")
    score = choose_backend("aw_ssim", prediction.device, backend)
    result: Tensor = score(prediction, target, sigma, weights, window_size, data_range, k1, k2, padding, "loss")
    return result


def ssim_loss(
    prediction: Tensor,  # [B, C, H, W]
    target: Tensor,  # [B, C, H, W]
    *,
    sigma: float | Tensor = 1.5,
    window_size: int = 11,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: Padding = "valid",
    backend: str = "auto",
) -> Tensor:
    """1 - mean :func:`ssim`: a scalar to minimise. Arguments and errors are those of :func:`ssim`."""
    sigma = _check_similarity(prediction, target, sigma, window_size, data_range, k1, k2, padding, "mean")
    score = choose_backend("ssim", prediction.device, backend)
    result: Tensor = score(prediction, target, sigma, None, window_size, data_range, k1, k2, padding, "loss")
    return result


def paste_defects(
    target: Tensor,  # [B, C, H, W]
    source: Tensor,  # [S, C, h, w]
    vertices: Tensor,  # [P, 7, 2] target pixels, (x, y); rows past vertex_count are ignored
    vertex_count: Tensor,  # [P] integer, 3..7, or 0 for an empty slot
    image_index: Tensor,  # [P] integer, the image each polygon is pasted into
    source_index: Tensor,  # [P] integer, the source image each polygon is cut from
    transform: Tensor,  # [P, 2, 3] affine map from target pixels (x, y, 1) to source pixels (x, y)
    blur_sigma: Tensor,  # [P] target pixels, >= 0; 0 keeps hard edges
    *,
    strength: Tensor | None = None,  # [P] opacity of the unblurred cut-out in [0, 1]; None is 1
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Paste blurred polygon cut-outs of ``source`` into ``target``.

    A pixel is inside by the even-odd rule, tested at its centre (x + 0.5, y + 0.5); of two polygons that share an
    edge one owns it. Every target pixel inside reads ``source`` at ``transform`` of its centre (bilinear, the nearest
    edge pixel beyond the border), so position, scale, aspect and rotation are all in ``transform``. The cut-out and its
    mask are blurred together (Gaussian, cut off at 3 sigma rounded up to whole pixels; beyond the image there is
    nothing) and blended; later polygons of an image lie on top.

    Returns:
        The defective images [B, C, H, W] in ``target``'s dtype and their opacity [B, 1, H, W] in [0, 1], float32
        (float64 for float64). Pixels with opacity 0 equal ``target`` bit for bit.

    Raises:
        TypeError: an argument is no tensor, or its dtype is not accepted; images may be float16, bfloat16, float32,
            float64 or uint8.
        ValueError: a shape, device, value or backend does not fit; the message names the argument.
        RuntimeError: the named backend is not available here.

    Not differentiable. The same inputs give the same bits on one device and backend.
    Source: Shiferaw & Yao 2024, Sec. 3.2, Eq. (1).
    """
    if strength is None:
        strength = torch.ones_like(blur_sigma)
    checks.require_defects(
        target, source, vertices, vertex_count, image_index, source_index, transform, blur_sigma, strength
    )
    paste = choose_backend("paste_defects", target.device, backend)
    with torch.no_grad(), torch.autocast(target.device.type, enabled=False):
        images, opacity = paste(
            target, source, vertices, vertex_count, image_index, source_index, transform, blur_sigma, strength
        )
    return images, opacity


def _check_similarity(
    prediction: Tensor,
    target: Tensor,
    sigma: float | Tensor,
    window_size: int,
    data_range: float,
    k1: float,
    k2: float,
    padding: str,
    reduction: str,
) -> Tensor:
    checks.require_image_pair(prediction, target)
    checks.require_window(window_size, padding, prediction.shape[2], prediction.shape[3])
    checks.require_choice("reduction", reduction, ("mean", "sample", "none"))
    for name, value in (("data_range", data_range), ("k1", k1), ("k2", k2)):
        checks.require_positive(name, value)
    return checks.per_sample_sigma(sigma, prediction)
