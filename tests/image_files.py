"""Small generated image files and data sets for the tests."""

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_PIXELS = 1_000_000


def noise(seed: int, height: int = 24, width: int = 32, channels: int = 0) -> npt.NDArray[np.uint8]:
    """Random pixels [H, W], or [H, W, C] where channels are asked for."""
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, pixels: npt.NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def png_bytes(width: int, height: int, bits: int, color_type: int, rows: bytes = b"") -> bytes:
    """A PNG file made by hand: ``rows`` are its unfiltered rows, each after a zero byte. Empty: a header alone."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def png_16(path: Path, values: npt.NDArray[np.uint16]) -> Path:
    """A 16-bit PNG of ``values`` [H, W, C]: gray, gray and alpha, RGB or RGBA."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path.write_bytes(png_bytes(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows))
    return path


def make_data_set(root: Path, *, train: int = 3, good: int = 2, defective: int = 2) -> Path:
    """A clean data set in MVTec layout with one defect, "crack", and masks; every image differs."""
    for index in range(train):
        write(root / f"train/good/{index:03d}.png", noise(index))
    for index in range(good):
        write(root / f"test/good/{index:03d}.png", noise(100 + index))
    for index in range(defective):
        write(root / f"test/crack/{index:03d}.png", noise(200 + index))
        mask = np.zeros((24, 32), dtype=np.uint8)
        mask[5 : 8 + index, 4:9] = 255
        write(root / f"ground_truth/crack/{index:03d}_mask.png", mask)
    return root
