"""Random numbers by counter: a draw depends on (seed, stream, epoch, sample) alone, on any device and in any order.

Philox-4x32-10 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", in plain tensor arithmetic.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_Words = TypeVar("_Words", Tensor, npt.NDArray[np.int64])

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Four 32-bit words for each counter: int64 [..., 4] holding 32-bit words -> int64 [..., 4] in [0, 2**32)."""
    if counter.device.type != "cpu":
        return torch.stack(_philox(key, *counter.unbind(dim=-1)), dim=-1)
    # Of a few hundred numbers NumPy takes half the time.
    words = counter.numpy()
    return torch.from_numpy(np.stack(_philox(key, *(words[..., word] for word in range(4))), axis=-1))


def _philox(key: tuple[int, int], c0: _Words, c1: _Words, c2: _Words, c3: _Words) -> tuple[_Words, ...]:
    k0, k1 = key[0] & _MASK, key[1] & _MASK
    for _ in range(_ROUNDS):
        # The 64-bit product wraps into the sign bit; shifting and masking still reads its two halves.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, low0 = (product0 >> 32) & _MASK, product0 & _MASK
        high1, low1 = (product1 >> 32) & _MASK, product1 & _MASK
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def uniform(samples: Tensor, count: int, *, seed: int, stream: int, epoch: int) -> Tensor:
    """Uniform draws in [0, 1) with 24 random bits: int64 [B] sample numbers -> float32 [B, count].

    ``stream`` keeps the draws of different purposes apart.
    """
    blocks = -(-count // 4)
    block = torch.arange(blocks, dtype=torch.int64, device=samples.device).expand(len(samples), blocks)
    sample = samples.to(torch.int64).unsqueeze(1).expand(-1, blocks)
    counter = torch.stack((block, torch.full_like(block, epoch), sample & _MASK, (sample >> 32) & _MASK), dim=-1)
    words = philox(counter, (seed, (seed >> 32) ^ (stream * 0x9E3779B1)))
    return ((words >> 8).to(torch.float32) * 2.0**-24).flatten(1)[:, :count]
