"""The end of LPIPS as it is commonly written. The package ``lpips`` has it inside its network alone."""

import torch
from torch import Tensor

from benchmarks.peers import Peer, compiled


def plain_feature_distance(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Normalise, subtract, square, weigh and sum, one operation after the other."""
    unit_x = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
    unit_y = y / (y.square().sum(1, keepdim=True).sqrt() + 1e-10)
    return torch.nn.functional.conv2d((unit_x - unit_y).square(), weights.view(1, -1, 1, 1))


FEATURE_PEERS = (
    Peer("torch.compile(plain torch)", lambda: compiled(plain_feature_distance), "torch"),
    Peer("plain torch", lambda: plain_feature_distance, "torch"),
)
