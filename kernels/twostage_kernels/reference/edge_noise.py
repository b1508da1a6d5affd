"""Noise that makes polygon edges irregular, in integers: every backend finds the same pixels inside.

Smooth value noise on a lattice, two octaves (3/4 of cells as large as the grain, 1/4 of cells half as large). All
numbers are unsigned 32-bit words that wrap, or signed ones within 31 bits.
"""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_FIELD_STEP = 0x9E3779B9
_X_STEP = 0x85EBCA77
_Y_STEP = 0xC2B2AE3D
SUBPIXELS = 256  # displacements are whole multiples of 1/256 pixel


def mix(word: Tensor) -> Tensor:
    """Every bit of a 32-bit word spread over all ("lowbias32" of C. Wellons' hash prospector)."""
    word = (word ^ (word >> 16)) * 0x7FEB352D & _MASK
    word = (word ^ (word >> 15)) * 0x846CA68B & _MASK
    return word ^ (word >> 16)


def value_noise(seed: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Noise at points of the lattice's plane: words with 16 bits behind the point -> int64 in [-32768, 32767]."""

    def corner(cell_x: Tensor, cell_y: Tensor) -> Tensor:
        word = mix(seed ^ (cell_x * _X_STEP & _MASK))
        return (mix(word ^ (cell_y * _Y_STEP & _MASK)) >> 16) - 32768

    def smooth(position: Tensor) -> Tensor:
        """3 t^2 - 2 t^3 of the place within the cell, in 1/1024."""
        t = (position & 0xFFFF) >> 6
        return t * t * (3072 - 2 * t) >> 20

    column, row = x >> 16, y >> 16
    down, along = smooth(y), smooth(x)
    upper_left, upper_right = corner(column, row), corner(column + 1, row)
    left = upper_left + ((corner(column, row + 1) - upper_left) * down >> 10)
    right = upper_right + ((corner(column + 1, row + 1) - upper_right) * down >> 10)
    return left + ((right - left) * along >> 10)


def displacement(amplitude: Tensor, grain: Tensor, seed: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """How far the point that stands for each pixel centre is moved along x and y: int64 [P, H, W] in 1/256 pixel.

    Args:
        amplitude: [P] pixels, the furthest a point moves along each axis.
        grain: [P] pixels, at least 1: side of the lattice's cells.
        seed: [P] integer; its lowest 32 bits count.
    """
    reach = (amplitude * SUBPIXELS).round().long().view(-1, 1, 1)
    step = (65536 / grain).round().long().view(-1, 1, 1)
    x = torch.arange(width, device=seed.device).view(1, 1, -1) * step & _MASK
    y = torch.arange(height, device=seed.device).view(1, -1, 1) * step & _MASK
    word = seed.long().view(-1, 1, 1) & _MASK

    def field(number: int) -> Tensor:
        own = mix((word + number * _FIELD_STEP) & _MASK)
        coarse = value_noise(own, x, y)
        fine = value_noise(own ^ _FIELD_STEP, 2 * x & _MASK, 2 * y & _MASK)
        return ((3 * coarse + fine) >> 2) * reach >> 15

    return field(0), field(1)
