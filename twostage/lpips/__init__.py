"""LPIPS (AlexNet v0.1) without torchvision."""

from twostage.lpips.network import LPIPS
from twostage.lpips.weights import load_lpips_weights

__all__ = ["LPIPS", "load_lpips_weights"]
