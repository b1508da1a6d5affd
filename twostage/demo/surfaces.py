"""The demonstration's images: three CC0 photographs of surfaces that come with scikit-image, cut to MVTec layout."""

import json
import secrets
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from twostage.demo.blemishes import BLEMISHES
from twostage.errors import DataError, OutputError
from twostage.files import write_text_atomic

SURFACES = ("brick", "grass", "gravel")
CROP = 160
"""Side of every image in pixels."""
TRAIN_IMAGES = 64
TEST_GOOD_IMAGES = 16
TEST_IMAGES_PER_DEFECT = 8

_SIDE = 512
_TEST_STRIP = (172, 340)
"""Columns of a photograph kept for testing. The middle, because the photograph of bricks leans one way on its left and
the other way on its right: what is tested lies between what is trained on."""
_MARKER = "demo.json"
_VERSION = 1


def write_demo_images(root: Path, *, seed: int = 0) -> Path:
    """Write ``root/<surface>`` for brick, grass and gravel, each a data set in MVTec layout of 160x160 gray PNG files.

    Each has 64 training images, 16 good test images and 8 for each kind in ``BLEMISHES``, with masks. Images are cut at
    different random places; training and test images come from separate strips of a photograph and share no pixel,
    images of one of the two may overlap. The folder appears at once, complete, or not at all; where it is there already
    it is used as it is. The same seed gives the same files.

    Returns:
        ``root``.

    Raises:
        DataError: scikit-image is not installed.
        OutputError: ``root`` cannot be written, or holds something else than these images with this seed.
    """
    wanted = {"version": _VERSION, "seed": seed, "files": _file_count()}
    if _is_complete(root, wanted):
        return root
    photographs = {surface: _photograph(surface) for surface in SURFACES}
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = root.with_name(f".{root.name[:40]}.{secrets.token_hex(8)}.tmp")
        try:
            temporary.mkdir()
            for index, (surface, photograph) in enumerate(photographs.items()):
                generator = Generator().manual_seed(seed * len(SURFACES) + index)
                _write_surface(temporary / surface, photograph, generator)
            write_text_atomic(temporary / _MARKER, json.dumps(wanted) + "\n")
            temporary.replace(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        # Another process may have finished the same folder first.
        if _is_complete(root, wanted):
            return root
        raise OutputError(f"{root} cannot be written: {error}") from error
    return root


def _file_count() -> int:
    defective = TEST_IMAGES_PER_DEFECT * len(BLEMISHES)
    return len(SURFACES) * (TRAIN_IMAGES + TEST_GOOD_IMAGES + 2 * defective)


def _is_complete(root: Path, wanted: dict[str, int]) -> bool:
    """Whether these images lie there already; False for nothing and for an empty folder."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    accepted = "accepted: a new or empty folder, or the demonstration's own images"
    try:
        found = json.loads((root / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{root} holds something else than the demonstration's images; {accepted}") from error
    if found != wanted:
        raise OutputError(f"{root} holds demonstration images of {found}, not of {wanted}; {accepted}")
    files = sum(1 for _ in root.glob("*/*/*/*.png"))
    if files != wanted["files"]:
        raise OutputError(f"{root} holds {files} of {wanted['files']} images; accepted: all of them, or none")
    return True


def _photograph(surface: str) -> Tensor:
    """One of scikit-image's photographs, [512, 512] in [0, 1]."""
    try:
        from skimage import data
    except ImportError as error:
        message = "the demonstration's photographs come with scikit-image, which is not installed"
        raise DataError(f"{message}; pip install scikit-image") from error
    photograph = torch.from_numpy(np.array(getattr(data, surface)()))
    if photograph.shape != (_SIDE, _SIDE) or photograph.dtype != torch.uint8:
        given = f"{photograph.dtype} {tuple(photograph.shape)}"
        raise DataError(f"scikit-image's photograph {surface!r} is {given}; accepted: uint8 ({_SIDE}, {_SIDE})")
    return photograph.to(torch.float32) / 255


def _write_surface(folder: Path, photograph: Tensor, generator: Generator) -> None:
    first, last = _TEST_STRIP
    left = _cuts(photograph[:, :first], TRAIN_IMAGES // 2, generator)
    right = _cuts(photograph[:, last:], TRAIN_IMAGES // 2, generator)
    for index, image in enumerate(left + right):
        _write(folder / "train" / "good" / f"{index:03d}.png", image)
    test = _cuts(photograph[:, first:last], TEST_GOOD_IMAGES + TEST_IMAGES_PER_DEFECT * len(BLEMISHES), generator)
    for index, image in enumerate(test[:TEST_GOOD_IMAGES]):
        _write(folder / "test" / "good" / f"{index:03d}.png", image)
    for number, (kind, add_blemish) in enumerate(BLEMISHES.items()):
        start = TEST_GOOD_IMAGES + number * TEST_IMAGES_PER_DEFECT
        for index, intact in enumerate(test[start : start + TEST_IMAGES_PER_DEFECT]):
            image, mask = add_blemish(intact, generator)
            _write(folder / "test" / kind / f"{index:03d}.png", image)
            _write(folder / "ground_truth" / kind / f"{index:03d}_mask.png", mask.to(image.dtype))


def _cuts(strip: Tensor, count: int, generator: Generator) -> list[Tensor]:
    """Square pieces at different places."""
    tops, lefts = strip.shape[0] - CROP + 1, strip.shape[1] - CROP + 1
    places = torch.randperm(tops * lefts, generator=generator)[:count].tolist()
    return [strip[place // lefts :, place % lefts :][:CROP, :CROP] for place in places]


def _write(path: Path, image: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * 255).round().to(torch.uint8).numpy()).save(path)
