"""Images and masks as tensors."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from twostage.config import Color
from twostage.data.ahead import in_order
from twostage.data.formats import bit_depth, decode, is_gray, open_image, orientation

_Pixels = npt.NDArray[Any]

_HEADER_READERS = 16  # threads: they wait for the disk, and not for a processor
_UPRIGHT: dict[int, Callable[[_Pixels], _Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}
"""How stored rows and columns turn upright, by EXIF orientation."""


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image file says."""

    format: str
    """PNG, JPEG, BMP, TIFF or WEBP: by content, not by file name."""
    width: int
    """Pixels, after EXIF orientation."""
    height: int
    channels: Literal["gray", "rgb"]
    """Alpha does not count; a palette of greys is gray."""
    bits: int
    """8 (also for bilevel files), 16, or 32 for floating-point samples."""


def probe_image(path: Path, *, max_pixels: int) -> ImageInfo:
    """Read an image's header. The pixels are decoded for palette images only.

    Raises:
        DataError: as ``read_image``, as far as the header shows it.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        width, height = image.size
        if orientation(image) >= 5:
            width, height = height, width
        bits = bit_depth(image)
        return ImageInfo(str(image.format), width, height, "gray" if is_gray(image) else "rgb", bits)


def read_image(path: Path, *, color: Literal["gray", "rgb"], max_pixels: int) -> Tensor:
    """Read one image upright (EXIF orientation applied).

    Alpha is composited on black. Colour becomes gray as luma of ITU-R BT.601; gray becomes rgb by repetition. Samples
    of 9 to 16 bits are divided by the largest value their bit depth can hold.

    Returns:
        ``[1, H, W]`` for gray, ``[3, H, W]`` for rgb; uint8 from files of at most 8 bits a sample, float32 in [0, 1]
        from 16-bit and floating-point ones.

    Raises:
        DataError: the file is missing, damaged, truncated, of a format or kind of samples that is not accepted,
            animated, larger than ``max_pixels`` by its header (refused before it is decoded), or holds NaN, infinite
            or out-of-range pixels. The message begins with the path and says what is accepted.
    """
    pixels = _read_pixels(path, max_pixels=max_pixels)
    return _as_gray(pixels) if color == "gray" else _as_rgb(pixels)


def read_image_and_luma(path: Path, *, color: Literal["gray", "rgb"], max_pixels: int) -> tuple[Tensor, Tensor]:
    """As :func:`read_image` in ``color`` and in gray, decoded once."""
    pixels = _read_pixels(path, max_pixels=max_pixels)
    gray = _as_gray(pixels)
    return (gray, gray) if color == "gray" else (_as_rgb(pixels), gray)


def read_mask(path: Path, *, max_pixels: int) -> Tensor:
    """Read the mask of a defect, upright.

    A pixel belongs to the defect where its value is above 0: masks of 0/255, of 0/1 and of region labels all work, and
    in a palette image whatever is not black belongs to it. In JPEG and WebP, which blur edges and make noise of zeros,
    a pixel belongs to the defect where its value is at least half of the largest possible.

    Returns:
        bool ``[H, W]``.

    Raises:
        DataError: as ``read_image``.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        lossy = image.format in ("JPEG", "WEBP")
        pixels = _UPRIGHT[orientation(image)](decode(image, path))
    marked = pixels >= 128 if lossy else pixels > 0
    return torch.from_numpy(np.ascontiguousarray(marked.any(axis=2)))


def resize_shorter_side(image: Tensor, size: int | None) -> Tensor:
    """Scale an image ``[C, H, W]`` (uint8, or floating point in [0, 1]) so that its shorter side has ``size`` pixels.

    The longer side is scaled alike and rounded to the nearest pixel. Bilinear, antialiased when shrinking; uint8 is
    rounded to the nearest value. Where nothing changes (``size`` None, or the size there already), the very same tensor
    is returned. Otherwise the result has the dtype and device of ``image``.

    Raises:
        ValueError: ``image`` is not of three dimensions, has no pixels, or is neither uint8 nor floating point;
            ``size`` is below 1.
    """
    if image.ndim != 3 or image.numel() == 0:
        raise ValueError(f"image has shape {tuple(image.shape)}; accepted: [C, H, W] with at least one pixel")
    if image.dtype != torch.uint8 and not image.dtype.is_floating_point:
        raise ValueError(f"image has dtype {image.dtype}; accepted: uint8 or floating point")
    if size is None:
        return image
    if size < 1:
        raise ValueError(f"size is {size}; accepted: None, or at least 1")
    height, width = image.shape[1:]
    shorter = min(height, width)
    if shorter == size:
        return image
    target = tuple((side * size + shorter // 2) // shorter for side in (height, width))
    # 16-bit numbers cannot be interpolated on a CPU.
    values = image if image.dtype == torch.float64 else image.float()
    # Torch interpolates a result one pixel wide wrongly, and one that is one pixel high rightly.
    turned = target[1] == 1
    if turned:
        values, target = values.mT, target[::-1]
    scaled = functional.interpolate(values[None], size=target, mode="bilinear", align_corners=False, antialias=True)[0]
    if turned:
        scaled = scaled.mT.contiguous()
    if image.dtype == torch.uint8:
        return scaled.round_().clamp_(0, 255).to(torch.uint8)
    return scaled.clamp_(0, 1).to(image.dtype)


def choose_color(paths: Iterable[Path], color: Color, *, max_pixels: int) -> Literal["gray", "rgb"]:
    """``color`` itself, or for ``auto``: gray where every file of ``paths`` stores gray, rgb otherwise.

    Raises:
        DataError: ``color`` is auto and a file up to the first coloured one cannot be read.
    """
    if color != "auto":
        return color
    headers = in_order(paths, partial(probe_image, max_pixels=max_pixels), threads=_HEADER_READERS)
    gray = all(info.channels == "gray" for info in headers)
    return "gray" if gray else "rgb"


def _read_pixels(path: Path, *, max_pixels: int) -> _Pixels:
    with open_image(path, max_pixels=max_pixels) as image:
        return _UPRIGHT[orientation(image)](decode(image, path))


def _as_gray(pixels: _Pixels) -> Tensor:
    return _as_tensor(_luma(pixels) if pixels.shape[2] == 3 else pixels)


def _as_rgb(pixels: _Pixels) -> Tensor:
    tensor = _as_tensor(pixels)
    return tensor.expand(3, -1, -1).contiguous() if tensor.shape[0] == 1 else tensor


def _as_tensor(pixels: _Pixels) -> Tensor:
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))


def _luma(pixels: _Pixels) -> _Pixels:
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None]
    luma: _Pixels = pixels @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
    return luma.clip(0, 1)
