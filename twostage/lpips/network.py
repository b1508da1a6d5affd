"""LPIPS, the learned perceptual distance between images, with the AlexNet trunk (version 0.1)."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from twostage.lpips.weights import HEAD_NAMES, load_lpips_weights
from twostage_kernels import feature_distance

Reduction = Literal["mean", "sample", "none"]

MINIMUM_SIZE = 31
"""Shorter side in pixels below which AlexNet's second pooling has no window left."""

# The published network takes images in [-1, 1] and then normalises them by these figures (red, green, blue).
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10
_TRUNK = (("features.0", 4, 2), ("features.3", 1, 2), ("features.6", 1, 1), ("features.8", 1, 1), ("features.10", 1, 1))
_POOLED_BEFORE = (1, 2)


class LPIPS(nn.Module):
    """Frozen LPIPS (AlexNet, v0.1): 0 for equal images, larger the more a person sees a difference.

    The weights are buffers: no optimiser moves them and no gradient is computed for them. A gray image
    [B, 1, H, W] gives what the image repeated over three channels gives, at the price of one channel.

    Args:
        weights: what ``load_lpips_weights`` returns; None calls it.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
    """

    def __init__(self, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        values = load_lpips_weights() if weights is None else weights
        for index, (name, _, _) in enumerate(_TRUNK):
            kernel = values[f"{name}.weight"].detach().clone(memory_format=torch.channels_last)
            self.register_buffer(f"kernel{index}", kernel)
            self.register_buffer(f"bias{index}", values[f"{name}.bias"].detach().clone())
        for index, name in enumerate(HEAD_NAMES):
            self.register_buffer(f"head{index}", values[name].detach().clone())
        # x = (2 image - 1 - shift) / scale = factor * image + offset
        kernel = self.get_buffer("kernel0")
        scale = kernel.new_tensor(_SCALE).view(1, 3, 1, 1)
        self.register_buffer("factor", 2 / scale)
        self.register_buffer("offset", -(1 + kernel.new_tensor(_SHIFT).view(1, 3, 1, 1)) / scale)
        self.eval()

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the five ReLUs, each of unit length over its channels (zero where all channels are zero).

        Args:
            image: [B, 1, H, W] or [B, 3, H, W] in [0, 1], H and W at least 31.

        Returns:
            Five float32 tensors [B, C, h, w].

        Raises:
            ValueError: the shape, the size, the dtype or the device does not fit; the message names both values.
        """
        return tuple(_unit_length(activation) for activation in self.activations(image))

    def activations(self, image: Tensor) -> list[Tensor]:
        """Outputs of the five ReLUs [B, C, h, w] as they are; arguments and errors as of :meth:`features`."""
        return self._activations("image", image)

    def forward(
        self, prediction: Tensor, target: Tensor | tuple[Tensor, ...], *, reduction: Reduction = "mean"
    ) -> Tensor:
        """Distance of ``prediction`` to ``target``. The gradient flows to ``prediction`` only.

        Args:
            prediction: [B, 1, H, W] or [B, 3, H, W] in [0, 1].
            target: an image batch of the same shape, or what ``features`` returned for one.
            reduction: "mean" for a scalar, "sample" for [B], "none" for a map [B, 1, H, W], to which each layer
                gives its own map, resized bilinearly. All float32.

        Raises:
            ValueError: a shape, size, dtype, device or the reduction does not fit; the message names both values.
        """
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction is {reduction!r}; accepted: {', '.join(get_args(Reduction))}")
        if isinstance(target, Tensor):
            _check_target_image(target, prediction)
            with torch.no_grad():
                wanted = tuple(self.activations(target))
        found = self._activations("prediction", prediction)
        if not isinstance(target, Tensor):
            wanted = target
            _check_features(wanted, found)
        maps = [
            feature_distance(activation, other, self.get_buffer(f"head{index}"))
            for index, (activation, other) in enumerate(zip(found, wanted, strict=True))
        ]
        if reduction == "none":
            size = prediction.shape[-2:]
            return torch.stack([functional.interpolate(layer, size=size, mode="bilinear") for layer in maps]).sum(0)
        sample = torch.stack([layer.mean((1, 2, 3)) for layer in maps]).sum(0)
        return sample.mean() if reduction == "mean" else sample

    def _activations(self, name: str, image: Tensor) -> list[Tensor]:
        self._check_image(name, image)
        image = image.to(self.get_buffer("kernel0").dtype)
        activations = [self._first_layer(image)]
        for index, (_, stride, padding) in enumerate(_TRUNK[1:], start=1):
            hidden = activations[-1]
            if index in _POOLED_BEFORE:
                hidden = functional.max_pool2d(hidden, 3, 2)
            kernel, bias = self.get_buffer(f"kernel{index}"), self.get_buffer(f"bias{index}")
            activations.append(functional.conv2d(hidden, kernel, bias, stride, padding).relu_())
        return activations

    def _first_layer(self, image: Tensor) -> Tensor:
        kernel = self.get_buffer("kernel0")
        scaled = kernel * self.get_buffer("factor")
        if image.shape[1] == 1:
            scaled = scaled.sum(1, keepdim=True)
        # The offset cannot go into the bias: the layer pads the normalised image with zeros, so at the borders
        # fewer taps meet it. Its response is that of a black image.
        black = self.get_buffer("offset").expand(-1, -1, *image.shape[-2:])
        # The two parts nearly cancel, so half precision would cost up to 2 % of the distance; this layer is cheap.
        with torch.autocast(image.device.type, enabled=False):
            response = functional.conv2d(black, kernel, self.get_buffer("bias0"), 4, 2)
            return (_convolve_in_blocks(image, scaled) + response).relu_()

    def _check_image(self, name: str, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise ValueError(f"{name} has shape {tuple(image.shape)}; accepted: [B, 1, H, W] or [B, 3, H, W]")
        if min(image.shape[-2:]) < MINIMUM_SIZE:
            height, width = image.shape[-2:]
            raise ValueError(f"{name} is {height}x{width} pixels; accepted: at least {MINIMUM_SIZE}x{MINIMUM_SIZE}")
        if not image.is_floating_point():
            raise ValueError(f"{name} has dtype {image.dtype}; accepted: a floating dtype, values in [0, 1]")
        device = self.get_buffer("kernel0").device
        if image.device != device:
            raise ValueError(f"{name} is on {image.device}; accepted: {device}, where the LPIPS weights are")


def _unit_length(activation: Tensor) -> Tensor:
    """The activation scaled to unit length over its channels, as ``feature_distance`` scales it."""
    values = activation.to(_accumulation_dtype(activation))
    # Outside the root, the epsilon would leave the gradient 0/0 wherever all channels are zero.
    inverse_length = torch.linalg.vector_norm(values, dim=1, keepdim=True).square_().add_(_EPSILON).rsqrt_()
    return values * inverse_length if values is activation else values.mul_(inverse_length)


def _accumulation_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _convolve_in_blocks(image: Tensor, kernel: Tensor) -> Tensor:
    """The 11x11 convolution with stride 4 and padding 2 as a 3x3 one over 4x4 blocks of pixels.

    Equal but for rounding. With 16 channels instead of one its input gradient is many times faster.
    """
    height, width = image.shape[-2:]
    rows, columns = (height - 7) // 4 + 3, (width - 7) // 4 + 3
    padded = functional.pad(image, (2, 4 * columns - width - 2, 2, 4 * rows - height - 2))
    blocks = functional.pixel_unshuffle(padded, 4).contiguous(memory_format=torch.channels_last)
    block_kernel = functional.pixel_unshuffle(functional.pad(kernel, (0, 1, 0, 1)), 4).contiguous(
        memory_format=torch.channels_last
    )
    return functional.conv2d(blocks, block_kernel)


def _check_target_image(target: Tensor, prediction: Tensor) -> None:
    _check_same("target", "shape", tuple(target.shape), tuple(prediction.shape))
    _check_same("target", "dtype", target.dtype, prediction.dtype)
    _check_same("target", "device", target.device, prediction.device)


def _check_features(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> None:
    _check_same("target", "feature shapes", [tuple(f.shape) for f in wanted], [tuple(f.shape) for f in found])
    for index, (feature, own) in enumerate(zip(wanted, found, strict=True)):
        _check_same(f"target[{index}]", "dtype", feature.dtype, _accumulation_dtype(own))
        _check_same(f"target[{index}]", "device", feature.device, own.device)


def _check_same(name: str, what: str, given: object, accepted: object) -> None:
    if given != accepted:
        raise ValueError(f"{name} has {what} {given}; accepted: that of prediction, {accepted}")
