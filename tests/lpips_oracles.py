"""LPIPS as its paper and first code write it down, step by step, and weights to try it with."""

import torch
from torch import Tensor
from torch.nn import functional

from twostage.lpips.weights import HEAD_SHAPES, TRUNK_SHAPES


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Weights of the right shapes, scaled so that no layer's output dies out or grows."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in TRUNK_SHAPES.items():
        scale = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5 if len(shape) == 4 else 0.1
        weights[name] = torch.randn(shape, generator=generator) * scale
    for name, shape in HEAD_SHAPES.items():
        weights[name] = torch.rand(shape, generator=generator)
    return weights


def textbook_activations(weights: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """Outputs of AlexNet's five ReLUs for an image [B, 3, H, W] in [0, 1]."""
    shift = image.new_tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = image.new_tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    hidden = (2 * image - 1 - shift) / scale
    activations = []
    for layer, stride, padding, pooled in (
        (0, 4, 2, False),
        (3, 1, 2, True),
        (6, 1, 1, True),
        (8, 1, 1, False),
        (10, 1, 1, False),
    ):
        if pooled:
            hidden = functional.max_pool2d(hidden, 3, 2)
        kernel, bias = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
        hidden = functional.relu(functional.conv2d(hidden, kernel.to(image), bias.to(image), stride, padding))
        activations.append(hidden)
    return activations


def textbook_maps(weights: dict[str, Tensor], prediction: Tensor, target: Tensor) -> list[Tensor]:
    """Each layer's map [B, 1, h, w]. The epsilon is outside the root, as first published."""
    maps = []
    pairs = zip(textbook_activations(weights, prediction), textbook_activations(weights, target), strict=True)
    for index, (mine, other) in enumerate(pairs):
        mine = mine / (mine.square().sum(1, keepdim=True).sqrt() + 1e-10)
        other = other / (other.square().sum(1, keepdim=True).sqrt() + 1e-10)
        maps.append(functional.conv2d((mine - other).square(), weights[f"lin{index}.weight"].to(prediction)))
    return maps


def textbook_lpips(weights: dict[str, Tensor], prediction: Tensor, target: Tensor) -> Tensor:
    """The distance [B]: each map's mean, summed over the layers."""
    maps = textbook_maps(weights, prediction, target)
    return torch.stack([layer.mean((1, 2, 3)) for layer in maps]).sum(0)


def textbook_map(weights: dict[str, Tensor], prediction: Tensor, target: Tensor) -> Tensor:
    """The map [B, 1, H, W]: each layer's, resized bilinearly, summed."""
    maps = textbook_maps(weights, prediction, target)
    resized = [
        functional.interpolate(layer, prediction.shape[2:], mode="bilinear", align_corners=False) for layer in maps
    ]
    return torch.stack(resized).sum(0)
