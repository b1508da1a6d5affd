"""Images, residuals and score maps as 8-bit RGB pictures."""

import io
import math
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.errors import ConfigError, DataError
from twostage.files import write_bytes_atomic

Picture = npt.NDArray[np.uint8]
"""uint8 [H, W, 3]"""

COLOUR_MAP = "inferno"
MASK_COLOUR = (0, 229, 255)
CONTOUR_COLOUR = (255, 255, 255)
RESIDUAL_FULL_SCALE = 0.5
_HALO_COLOUR = (0, 0, 0)
# The image shines through even the hottest place, so that the defect itself stays visible.
_STRONGEST_HEAT = 0.75
# At this many pixels of the longer side, lines become two pixels wide, and so on.
_PIXELS_PER_LINE_WIDTH = 512


def heat_map(score_map: Tensor, low: float, high: float) -> Picture:
    """A score map in false colours, from black over purple and orange to pale yellow (perceptually uniform).

    Args:
        score_map: [H, W]. What is not finite is drawn as if it were the nearer end of the range, NaN as ``low``.
        low: drawn in the first colour, as is everything below.
        high: drawn in the last colour, as is everything above.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: the map is not [H, W] with at least one pixel.
        ConfigError: the range is not finite, or is empty.
    """
    _require_map("score_map", score_map)
    require_range(low, high)
    return _in_colours(_share_of_range(score_map, low, high))


def plain_picture(image: Tensor) -> Picture:
    """An image [C, H, W] in [0, 1], C of 1 or 3, as uint8 [H, W, 3]; grey gets three equal channels.

    Raises:
        DataError: the image is not [1, H, W] or [3, H, W] with at least one pixel.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise DataError(f"image has shape {tuple(image.shape)}; accepted: [1, H, W] or [3, H, W]")
    values = image.detach().cpu().float().nan_to_num(0.0).clamp(0, 1).mul(255).round()
    return _as_picture(values.expand(3, -1, -1).permute(1, 2, 0))


def residual_picture(residual: Tensor) -> Picture:
    """A residual in shades of grey: black where input and reconstruction agree, brighter where they differ.

    Brightness is the square root of the difference, so that faint differences show too. White is a difference of
    :data:`RESIDUAL_FULL_SCALE` of the image range and more: the scale is the same for every image.

    Args:
        residual: [H, W], absolute differences, in units of the image range.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: the residual is not [H, W] with at least one pixel.
    """
    _require_map("residual", residual)
    share = _share_of_range(residual, 0.0, RESIDUAL_FULL_SCALE).sqrt()
    return plain_picture(share.unsqueeze(0))


def mask_picture(mask: Tensor) -> Picture:
    """A mask bool [H, W] as uint8 [H, W, 3]: white where it is set, black elsewhere.

    Raises:
        DataError: the mask is not [H, W] with at least one pixel.
    """
    _require_map("mask", mask)
    return plain_picture(mask.float().unsqueeze(0))


def overlay(
    image: Tensor,
    score_map: Tensor,
    low: float,
    high: float,
    *,
    mask: Tensor | None = None,
    threshold: float | None = None,
) -> Picture:
    """A score map laid over its image: the image in shades of grey, heat fading in with the score.

    Args:
        image: [C, H, W] in [0, 1], C of 1 or 3. Colour is dropped, so that every colour seen is a score.
        score_map: [H, W].
        low: no heat up to this score.
        high: full heat from this score on.
        mask: bool [H, W]; its regions get a cyan line with a black edge around them.
        threshold: places that score above it get a white line along their inner border.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: the shapes do not fit; the message names both.
        ConfigError: the range is not finite, or is empty.
    """
    _require_map("score_map", score_map)
    require_range(low, high)
    share = _share_of_range(score_map, low, high)
    grey = plain_picture(image).astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    for name, values in (("score_map", score_map), ("mask", mask)):
        if values is not None and tuple(values.shape) != grey.shape:
            raise DataError(f"{name} has shape {tuple(values.shape)}; accepted: that of the image, {grey.shape}")
    opacity = (share.sqrt() * _STRONGEST_HEAT).unsqueeze(2).numpy()
    picture: Picture = np.rint(grey[..., None] * (1 - opacity) + _in_colours(share) * opacity).astype(np.uint8)
    width = 1 + max(grey.shape) // _PIXELS_PER_LINE_WIDTH
    if threshold is not None:
        above = score_map.detach().cpu() > threshold
        picture[(above & _grown(~above, width)).numpy()] = CONTOUR_COLOUR
    if mask is not None:
        region = mask.detach().cpu().bool()
        around = _grown(region, width)
        picture[(_grown(region, 2 * width) & ~around).numpy()] = _HALO_COLOUR
        picture[(around & ~region).numpy()] = MASK_COLOUR
    return picture


def save_png(path: Path, picture: Picture) -> None:
    """Write a picture (uint8 [H, W, 3] or [H, W]) as a PNG file, atomically.

    Raises:
        OutputError: the file cannot be written; what was there before is untouched.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    write_bytes_atomic(path, buffer.getvalue())


def colours(count: int) -> list[str]:
    """``count`` colours of the heat map at even distances, first and last included, as ``#rrggbb``."""
    picture = _in_colours(torch.linspace(0, 1, count).unsqueeze(0))
    return ["#" + bytes(colour).hex() for colour in picture[0]]


def require_range(low: float, high: float) -> None:
    """Raises:
    ConfigError: ``low`` and ``high`` are not two finite numbers in rising order.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"the range of scores is {low!r} to {high!r}; accepted: two finite numbers in rising order")


def _require_map(name: str, values: Tensor) -> None:
    if values.ndim != 2 or values.numel() == 0:
        raise DataError(f"{name} has shape {tuple(values.shape)}; accepted: [H, W] with at least one pixel")


def _share_of_range(score_map: Tensor, low: float, high: float) -> Tensor:
    values = score_map.detach().cpu().double().nan_to_num(nan=low, posinf=high, neginf=low)
    return ((values - low) / (high - low)).clamp(0, 1).float()


def _in_colours(share: Tensor) -> Picture:
    table = _colour_table()
    picture: Picture = table[share.mul(len(table) - 1).round().long().numpy()]
    return picture


@cache
def _colour_table() -> Picture:
    table: Picture = matplotlib.colormaps[COLOUR_MAP](np.arange(256), bytes=True)[:, :3]
    return table


def _grown(region: Tensor, by: int) -> Tensor:
    """The pixels at most ``by`` rows and columns from a region bool [H, W]."""
    return F.max_pool2d(region.float()[None, None], 2 * by + 1, stride=1, padding=by)[0, 0].bool()


def _as_picture(values: Tensor) -> Picture:
    picture: Picture = np.ascontiguousarray(values.to(torch.uint8).numpy())
    return picture
