"""Test defects for the demonstration, none of them made as the training defects are (pasted polygons).

Every function takes a gray image ``[H, W]``, floating point in [0, 1], at least 64 pixels a side, and a CPU generator,
which alone decides where the defect lies and how it looks. It returns the image with the defect, in [0, 1], and the
bool mask ``[H, W]`` of the pixels that the defect visibly changed. Outside the defect's own soft edge the image keeps
its bits.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

_NOTICEABLE = 0.045
"""Change of brightness, root mean square over a neighbourhood, from which on a person sees it on these surfaces."""
_NEIGHBOURHOOD = 2.5
"""Standard deviation in pixels of that neighbourhood."""
_FEWEST_PIXELS = {"scratch": 150, "stain": 300, "hole": 150, "missing_texture": 300, "warp": 300}
"""A draw that changes fewer pixels visibly (texture worn off where there was none, say) is drawn again."""


def add_scratch(image: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A curved line one to three pixels wide that thins out at its ends, light with a dark edge or the reverse."""
    return _draw_until_seen("scratch", _scratch, image, generator)


def add_stain(image: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A dark soft patch with a darker rim, as a liquid leaves; the texture shows through."""
    return _draw_until_seen("stain", _stain, image, generator)


def add_hole(image: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A small ragged pit, nearly black, whose far edge catches the light."""
    return _draw_until_seen("hole", _hole, image, generator)


def add_missing_texture(image: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A patch where the texture is worn down to its smooth local mean."""
    return _draw_until_seen("missing_texture", _missing_texture, image, generator)


def add_warp(image: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A patch whose texture is twisted about its centre and pushed aside."""
    return _draw_until_seen("warp", _warp, image, generator)


BLEMISHES: dict[str, Callable[[Tensor, Generator], tuple[Tensor, Tensor]]] = {
    "scratch": add_scratch,
    "stain": add_stain,
    "hole": add_hole,
    "missing_texture": add_missing_texture,
    "warp": add_warp,
}
"""Every kind of test defect by its name."""


def _draw_until_seen(
    kind: str, draw: Callable[[Tensor, Generator], Tensor], image: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    if image.ndim != 2 or min(image.shape) < 64 or not image.dtype.is_floating_point:
        given = f"{image.dtype} {tuple(image.shape)}"
        raise ValueError(f"image is {given}; accepted: floating point [H, W] of at least 64 pixels a side")
    for _ in range(100):
        changed = draw(image, generator).clamp(0, 1)
        mask = _noticeable(image, changed)
        if int(mask.sum()) >= _FEWEST_PIXELS[kind]:
            return changed, mask
    raise ValueError(f"no visible {kind} could be drawn; accepted: an image within 0..1, with texture")


def _noticeable(before: Tensor, after: Tensor) -> Tensor:
    change = after - before
    seen = _blur(change.square(), _NEIGHBOURHOOD).clamp_min(0).sqrt() > _NOTICEABLE
    return seen & _dilate(change.abs() > 1 / 255)


def _dilate(mask: Tensor) -> Tensor:
    return functional.max_pool2d(mask[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian, mirrored at the borders."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps = taps / taps.sum()
    padded = functional.pad(image[None, None], (radius,) * 4, mode="reflect")
    rows = functional.conv2d(padded, taps.view(1, 1, -1, 1))
    return functional.conv2d(rows, taps.view(1, 1, 1, -1))[0, 0]


def _coordinates(image: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel, each [H, W]."""
    height, width = image.shape
    rows = torch.arange(height, dtype=image.dtype)[:, None].expand(height, width)
    return rows, torch.arange(width, dtype=image.dtype)[None, :].expand(height, width)


def _centre(image: Tensor, margin: float, generator: Generator) -> tuple[float, float]:
    height, width = image.shape
    margin = min(margin, 0.45 * min(height, width))
    return _uniform(margin, height - margin, generator), _uniform(margin, width - margin, generator)


def _depth_in_blob(image: Tensor, radius: float, ragged: float, generator: Generator) -> Tensor:
    """How many pixels each pixel lies inside a rounded random shape (negative outside), [H, W]."""
    row, column = _centre(image, radius + 4, generator)
    rows, columns = _coordinates(image)
    tilt, stretch = _uniform(0, math.pi, generator), _uniform(1.0, 1.6, generator)
    down, right = rows - row, columns - column
    along = (down * math.sin(tilt) + right * math.cos(tilt)) / math.sqrt(stretch)
    across = (down * math.cos(tilt) - right * math.sin(tilt)) * math.sqrt(stretch)
    angle = torch.atan2(across, along)
    edge = torch.full_like(image, radius)
    for frequency in range(2, 9):
        amplitude, phase = _uniform(0, ragged, generator) / frequency, _uniform(0, 2 * math.pi, generator)
        edge = edge + radius * amplitude * torch.cos(frequency * angle + phase)
    return edge - torch.sqrt(along**2 + across**2)


def _scratch(image: Tensor, generator: Generator) -> Tensor:
    length, width = _uniform(45, 100, generator), _uniform(1.6, 3.2, generator)
    row, column = _centre(image, 0.3 * length, generator)
    angle, bend = _uniform(0, math.pi, generator), _uniform(-0.25, 0.25, generator)
    position = torch.linspace(-0.5, 0.5, 121, dtype=image.dtype)
    sideways = bend * length * (4 * position**2 - 1) + 0.012 * length * torch.sin(
        position * _uniform(8, 20, generator) + _uniform(0, 2 * math.pi, generator)
    )
    down = row + length * position * math.sin(angle) + sideways * math.cos(angle)
    right = column + length * position * math.cos(angle) - sideways * math.sin(angle)
    path = torch.stack([down, right], dim=-1)
    half_width = 0.5 * width * (1 - (2 * position).abs() ** 3)
    light = float(torch.rand((), generator=generator)) < 0.6

    pixels = torch.stack(_coordinates(image), dim=-1).reshape(-1, 2)

    def cover(shift: float) -> Tensor:
        # Not through a matrix product, whose rounding differs from machine to machine.
        distance = torch.cdist(pixels, path + shift, compute_mode="donot_use_mm_for_euclid_dist")
        return (half_width + 0.5 - distance).amax(dim=-1).clamp(0, 1).view(image.shape)

    groove, edge = (0.93, 0.12) if light else (0.08, 0.75)
    strength = _uniform(0.85, 1.0, generator)
    shaded = torch.lerp(image, torch.full_like(image, edge), 0.5 * strength * cover(1.3))
    return torch.lerp(shaded, torch.full_like(image, groove), strength * cover(0.0))


def _stain(image: Tensor, generator: Generator) -> Tensor:
    radius = _uniform(13, 26, generator)
    depth = _depth_in_blob(image, radius, 0.35, generator)
    soft = _uniform(1.5, 3.0, generator)
    body = (depth / soft).clamp(0, 1)
    rim = torch.exp(-0.5 * ((depth - 1.5 * soft) / soft) ** 2) * body
    strength = _uniform(0.35, 0.55, generator)
    return image * (1 - strength * body * (0.8 + 0.45 * rim))


def _hole(image: Tensor, generator: Generator) -> Tensor:
    radius = _uniform(7, 12, generator)
    depth = _depth_in_blob(image, radius, 0.5, generator)
    inside = (depth + 0.5).clamp(0, 1)
    floor = 0.04 + 0.35 * _blur(image, 2.0) * (1 - depth / radius).clamp(0, 1) ** 2
    # Light falls from the upper left: the wall on the lower right is lit.
    lit = (inside - torch.roll(inside, shifts=(-2, -2), dims=(0, 1))).clamp(0, 1)
    return torch.lerp(image, floor, inside) + 0.4 * _blur(lit, 0.8) * inside


def _missing_texture(image: Tensor, generator: Generator) -> Tensor:
    radius = _uniform(14, 26, generator)
    depth = _depth_in_blob(image, radius, 0.6, generator)
    worn = (depth / 4).clamp(0, 1)
    smooth = _blur(image, 6.0) + 0.12 * (image - _blur(image, 3.0))
    return torch.lerp(image, smooth, worn)


def _warp(image: Tensor, generator: Generator) -> Tensor:
    radius = _uniform(22, 36, generator)
    row, column = _centre(image, radius, generator)
    rows, columns = _coordinates(image)
    down, right = rows - row, columns - column
    fade = (1 - (down**2 + right**2) / radius**2).clamp_min(0) ** 2
    sign = 1 if float(torch.rand((), generator=generator)) < 0.5 else -1
    twist = sign * _uniform(0.7, 1.2, generator) * fade
    push, direction = _uniform(6, 11, generator), _uniform(0, 2 * math.pi, generator)
    from_rows = row + down * torch.cos(twist) - right * torch.sin(twist) + push * math.sin(direction) * fade
    from_columns = column + down * torch.sin(twist) + right * torch.cos(twist) + push * math.cos(direction) * fade
    height, width = image.shape
    grid = torch.stack([2 * from_columns / (width - 1) - 1, 2 * from_rows / (height - 1) - 1], dim=-1)
    moved = functional.grid_sample(
        image[None, None], grid[None], mode="bicubic", padding_mode="reflection", align_corners=True
    )[0, 0]
    return torch.where(fade > 0, moved, image)
