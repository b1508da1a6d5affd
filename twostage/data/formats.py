"""Open image files that nobody vouches for: accept by content, refuse by header, name the file in every error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from twostage.errors import DataError

ACCEPTED = "PNG, JPEG, BMP, TIFF or WebP"
ACCEPTED_PIXELS = (
    "8-bit or bilevel grey, colour or palette; 16-bit grey or interleaved colour; floating-point grey within 0..1"
)

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")

# Pillow keeps only the more significant byte of 16-bit colour. These layouts name the other byte of the same samples.
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}


def _identify(start: bytes) -> type[ImageFile.ImageFile] | None:
    """The decoder for a file that begins with these (at least 12) bytes; None for a format that is not accepted."""
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if start.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if start.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile
    if start.startswith(_TIFF_STARTS):
        return TiffImagePlugin.TiffImageFile
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return None


@contextmanager
def open_image(path: Path, *, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Open one still image; its pixels are not decoded yet. What a decoder raises inside the block becomes a DataError.

    The decoder is built directly, not by ``Image.open``: that one has a size limit of its own, global to the process
    (it stays in force for WebP: 179 million pixels). A multi-picture JPEG, as cameras write them, counts as its first
    picture.

    Raises:
        DataError: the file is missing, empty, not of an accepted format, animated or of several pages, damaged, or has
            more than ``max_pixels`` pixels by its header. The message begins with the path.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
            if not start:
                raise DataError(f"{path}: the file is empty; accepted: {ACCEPTED}")
            decoder = _identify(start)
            if decoder is None:
                raise DataError(f"{path}: not an accepted image (its first bytes are {start!r}); accepted: {ACCEPTED}")
            file.seek(0)
            with decoder(file) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise DataError(
                        f"{path}: {width}x{height} = {width * height} pixels by its header; "
                        f"accepted: at most data.max_pixels = {max_pixels}"
                    )
                frames = getattr(image, "n_frames", 1)
                if frames > 1:
                    raise DataError(f"{path}: holds {frames} frames or pages; accepted: still images of one")
                yield image
    except DataError:
        raise
    # A decoder may raise nearly anything on damaged bytes (OSError, SyntaxError, struct.error, KeyError, ...), and one
    # bad file among many must be reported by name. KeyboardInterrupt and the like are no Exception and pass.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: cannot be read ({reason}); accepted: an intact {ACCEPTED} file") from error


def is_gray(image: ImageFile.ImageFile) -> bool:
    """Whether the file stores one channel (beside alpha), or a palette of greys only."""
    if image.mode in ("P", "PA"):
        _load(image)
        palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "F", *_SIXTEEN_BIT_MODES) or _raw_mode(image) == "LA;16B"


def bit_depth(image: ImageFile.ImageFile) -> int:
    """8 for files read as uint8 (also bilevel ones), 16 for 16-bit and 32 for floating-point samples."""
    if image.mode == "F":
        return 32
    return 16 if image.mode in _SIXTEEN_BIT_MODES or ";16" in _raw_mode(image) else 8


def orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation still to be applied, 1 to 8; 1 for TIFF, where Pillow applies it while it decodes."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1
    # Not image.getexif(): for PNG that decodes the whole file, to look for EXIF data behind the pixels.
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def decode(image: ImageFile.ImageFile, path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Pixels [H, W, 1 or 3] as stored: uint8, or float32 within 0..1 for 16-bit and floating-point files.

    Alpha (a channel, or that of a palette) is composited on black; a single transparent colour is not alpha and is
    ignored. EXIF orientation is not applied yet. To be called once, inside ``open_image`` of the same path.

    Raises:
        DataError: the samples are of a kind that is not accepted, not finite, or floats outside 0..1. The message
            begins with the path.
    """
    raw_mode = _raw_mode(image)
    # Separate planes of 16 bits are decoded as if of 8, without an error.
    planar = _tiff_tag(image, TiffImagePlugin.PLANAR_CONFIGURATION, 1) != 1
    if planar and _tiff_tag(image, TiffImagePlugin.BITSPERSAMPLE, 1) > 8:
        raise DataError(f"{path}: 16-bit samples are stored in separate planes; accepted: {ACCEPTED_PIXELS}")
    if image.mode in _SIXTEEN_BIT_MODES:
        return _gray_16(image)
    if image.mode == "F":
        return _gray_float(image, path)
    if raw_mode == "LA;16B":
        return _gray_alpha_16(image)
    channels, _, sample = raw_mode.partition(";")
    if channels in ("RGB", "RGBA", "RGBX") and sample in _OTHER_BYTE:
        return _color_16(image, path, f"{channels};{_OTHER_BYTE[sample]}")
    if image.mode in _EIGHT_BIT_MODES and ";16" not in raw_mode:
        return _eight_bit(image)
    raise DataError(f"{path}: samples are stored as {raw_mode or image.mode!r}; accepted: {ACCEPTED_PIXELS}")


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How samples lie in the file, in Pillow's terms; empty where the decoder needs no such name."""
    if not image.tile:
        return ""
    args = image.tile[0].args
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _tiff_tag(image: ImageFile.ImageFile, tag: int, default: int) -> int:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return default
    value = image.tag_v2.get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _load(image: ImageFile.ImageFile) -> None:
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
        # Where Pillow has to ask for the memory itself, it applies its own limit on sizes.
        stored_size = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
        image.im = Image.new(image.mode, stored_size).im
    image.load()


def _pixels(image: ImageFile.ImageFile) -> npt.NDArray[Any]:
    _load(image)
    return np.asarray(image)


def _gray_16(image: ImageFile.ImageFile) -> npt.NDArray[np.float32]:
    bits = _tiff_tag(image, TiffImagePlugin.BITSPERSAMPLE, 16)
    white_is_zero = _tiff_tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 1) == 0
    values = _pixels(image).astype(np.float32)[..., None] / np.float32(2**bits - 1)
    return 1 - values if white_is_zero else values


def _gray_float(image: ImageFile.ImageFile, path: Path) -> npt.NDArray[np.float32]:
    values = _pixels(image).astype(np.float32)[..., None]
    unusable = int(values.size - np.isfinite(values).sum())
    if unusable:
        raise DataError(f"{path}: {unusable} pixels are NaN or infinite; accepted: finite numbers within 0..1")
    if values.min() < 0 or values.max() > 1:
        raise DataError(
            f"{path}: floating-point pixels from {values.min():g} to {values.max():g}; accepted: within 0..1"
        )
    return values


def _gray_alpha_16(image: ImageFile.ImageFile) -> npt.NDArray[np.float32]:
    # Read as four bytes a pixel: grey (high, low), alpha (high, low).
    image.tile = [tile._replace(args="RGBA") for tile in image.tile]
    stored = _pixels(image).astype(np.float32)
    gray, alpha = stored[..., 0] * 256 + stored[..., 1], stored[..., 2] * 256 + stored[..., 3]
    return (gray / np.float32(65535) * (alpha / np.float32(65535)))[..., None]


def _color_16(image: ImageFile.ImageFile, path: Path, other_byte: str) -> npt.NDArray[np.float32]:
    with path.open("rb") as file, type(image)(file) as again:
        again.tile = [_with_raw_mode(tile, other_byte) for tile in again.tile]
        stored = _pixels(image).astype(np.float32) * 256 + _pixels(again)
    values: npt.NDArray[np.float32] = stored / np.float32(65535)
    return np.multiply(values[..., :3], values[..., 3:]) if image.mode == "RGBA" else values


def _with_raw_mode(tile: ImageFile._Tile, raw_mode: str) -> ImageFile._Tile:
    return tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)


def _eight_bit(image: ImageFile.ImageFile) -> npt.NDArray[np.uint8]:
    gray = is_gray(image)
    _load(image)
    transparent = image.mode in ("LA", "PA", "RGBA") or (image.mode == "P" and "transparency" in image.info)
    if transparent:
        seen = image.convert("RGBA")
        pixels = Image.new("RGB", seen.size)
        pixels.paste(seen, mask=seen.getchannel("A"))
    else:
        pixels = image.convert("L" if image.mode in ("1", "L") else "RGB")
    values = np.asarray(pixels)
    if values.ndim == 2:
        return values[..., None]
    return values[..., :1] if gray else values
