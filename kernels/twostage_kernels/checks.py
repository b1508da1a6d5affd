"""Checks of arguments, shared by all ops. Each error names the argument, its value and what is accepted."""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from twostage_kernels.precision import sum_dtype

IMAGE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INDEX_DTYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; accepted: {', '.join(map(repr, choices))}")


def require_positive(name: str, value: float) -> None:
    if type(value) is float and 0 < value < math.inf:  # without the two slower questions
        return
    if not isinstance(value, Real):
        raise TypeError(f"{name} is a {type(value).__name__}; accepted: a number")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value!r}; accepted: a finite number above 0")


def require_image_pair(prediction: Tensor, target: Tensor) -> None:
    shape = _require_image("prediction", prediction)
    if not isinstance(target, Tensor) or target.shape != shape or target.dtype != prediction.dtype:
        _require_image("target", target)
        _require_equal_shapes(prediction, target)
        raise TypeError(f"prediction has dtype {prediction.dtype} and target {target.dtype}; accepted: equal dtypes")
    if not (prediction.is_cpu and target.is_cpu):  # a device is slow to ask for
        _require_one_device(prediction, target)


def _require_equal_shapes(prediction: Tensor, target: Tensor) -> None:
    if target.shape != prediction.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)} and target {tuple(target.shape)}; accepted: equal shapes"
        )


def _require_one_device(prediction: Tensor, target: Tensor) -> None:
    if prediction.device != target.device:
        raise ValueError(
            f"prediction is on {prediction.device} and target on {target.device}; accepted: the same device"
        )


def _require_image(name: str, image: Tensor) -> torch.Size:
    if not isinstance(image, Tensor):
        raise TypeError(f"{name} is a {type(image).__name__}; accepted: a torch.Tensor")
    shape = image.shape
    if len(shape) != 4:
        raise ValueError(f"{name} has shape {tuple(shape)}; accepted: [B, C, H, W]")
    if image.dtype not in IMAGE_DTYPES:
        raise TypeError(f"{name} has dtype {image.dtype}; accepted: float16, bfloat16, float32, float64")
    if not (shape[1] and shape[2] and shape[3]):
        raise ValueError(f"{name} has shape {tuple(shape)}; accepted: [B, C, H, W] with at least one pixel")
    return shape


def require_features(prediction: Tensor, target: Tensor) -> None:
    _require_image("prediction", prediction)
    _require_image("target", target)
    _require_equal_shapes(prediction, target)
    if sum_dtype(prediction) != sum_dtype(target):
        raise TypeError(
            f"prediction has dtype {prediction.dtype} and target {target.dtype}; accepted: float64 for both or neither"
        )
    _require_one_device(prediction, target)


def channel_weights(weights: Tensor, features: Tensor) -> Tensor:
    """``weights`` as a contiguous [C] tensor in the precision of the sums."""
    if not isinstance(weights, Tensor):
        raise TypeError(f"weights is a {type(weights).__name__}; accepted: a torch.Tensor")
    channels = features.shape[1]
    if weights.shape not in ((channels,), (1, channels, 1, 1)):
        raise ValueError(f"weights has shape {tuple(weights.shape)}; accepted: [{channels}] or [1, {channels}, 1, 1]")
    if not weights.is_floating_point():
        raise TypeError(f"weights has dtype {weights.dtype}; accepted: a floating-point dtype")
    if weights.device != features.device:
        raise ValueError(f"weights is on {weights.device} and the features on {features.device}; accepted: the same")
    return weights.reshape(channels).to(sum_dtype(features)).contiguous()


def require_window(window_size: int, padding: str, height: int, width: int) -> None:
    if not isinstance(window_size, int) or window_size < 1 or window_size % 2 == 0:
        raise ValueError(f"window_size is {window_size!r}; accepted: an odd integer of at least 1")
    require_choice("padding", padding, ("valid", "same"))
    if padding == "valid" and min(height, width) < window_size:
        raise ValueError(
            f"window_size is {window_size} and the images are {height}x{width}; accepted with padding='valid': "
            f"images of at least {window_size}x{window_size} (or padding='same')"
        )


def require_weights(weights: Any) -> tuple[float, float, float]:
    try:
        alpha, beta, gamma = weights
        alpha, beta, gamma = float(alpha), float(beta), float(gamma)
    except (TypeError, ValueError) as error:
        raise ValueError(f"weights is {weights!r}; accepted: three numbers (alpha, beta, gamma)") from error
    if not (math.isfinite(alpha) and math.isfinite(beta) and math.isfinite(gamma)):
        raise ValueError(f"weights is {weights!r}; accepted: three finite numbers (alpha, beta, gamma)")
    return alpha, beta, gamma


def require_constants(data_range: float, k1: float, k2: float, l1_weight: float) -> None:
    floats = type(data_range) is type(k1) is type(k2) is float
    if not (floats and 0 < data_range < math.inf and 0 < k1 < math.inf and 0 < k2 < math.inf):  # all at once: faster
        require_positive("data_range", data_range)
        require_positive("k1", k1)
        require_positive("k2", k2)
    if type(l1_weight) is not float and not isinstance(l1_weight, Real):
        raise TypeError(f"l1_weight is a {type(l1_weight).__name__}; accepted: a number")
    if not 0 <= l1_weight <= 1:
        raise ValueError(f"l1_weight is {l1_weight!r}; accepted: 0 to 1")


def checked_mask(mask: Tensor, images: Tensor) -> Tensor:
    """``mask`` as a [B, 1, H, W] tensor in the precision of the sums."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask is a {type(mask).__name__}; accepted: a torch.Tensor or None")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(f"mask has dtype {mask.dtype}; accepted: bool or a floating-point dtype")
    shape = (images.shape[0], 1, *images.shape[2:])
    if mask.shape != shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; accepted: {list(shape)}, one channel for all")
    if mask.device != images.device:
        raise ValueError(f"mask is on {mask.device} and the images on {images.device}; accepted: the same device")
    if mask.is_floating_point() and can_be_read(mask) and not bool(((mask >= 0) & mask.isfinite()).all()):
        raise ValueError("mask has values below 0 or not finite; accepted: finite values of at least 0")
    return mask.detach().to(sum_dtype(images))


def per_sample_sigma(sigma: float | Tensor, images: Tensor) -> Tensor:
    """``sigma`` as a [B] tensor in the precision of the sums, without reading it back from the device."""
    batch = images.shape[0]
    dtype = sum_dtype(images)
    if type(sigma) is float or not isinstance(sigma, Tensor):  # the second question is a slow one
        require_positive("sigma", sigma)
        return torch.full((batch,), float(sigma), dtype=dtype, device=images.device)
    if sigma.device != images.device:
        raise ValueError(f"sigma is on {sigma.device} and the images on {images.device}; accepted: the same device")
    if not sigma.is_floating_point():
        raise TypeError(f"sigma has dtype {sigma.dtype}; accepted: a floating-point dtype")
    if sigma.ndim > 1 or (sigma.ndim == 1 and sigma.shape[0] != batch):
        raise ValueError(f"sigma has shape {tuple(sigma.shape)}; accepted: a number, a 0-d tensor or [{batch}]")
    if can_be_read(sigma):
        values = [sigma.item()] if sigma.ndim == 0 else sigma.tolist()
        if not all(0 < value < math.inf for value in values):
            raise ValueError(f"sigma is {sigma.tolist()}; accepted: finite values above 0")
    return sigma.detach().to(dtype).expand(batch)


def can_be_read(tensor: Tensor) -> bool:
    """Whether looking at the values waits for no device and meets no tensor without values (fake, functional).

    Where it is not so, the caller answers for the values.
    """
    plain = type(tensor) in (Tensor, torch.nn.Parameter)
    return plain and tensor.is_cpu and not torch.compiler.is_compiling()
