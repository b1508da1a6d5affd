"""paste_defects on the CPU beside the same pipeline written by hand with OpenCV and with Pillow, and beside a copy.

Run with ``python -m benchmarks.paste_cpu``. Every figure is a ratio to copying the batch, measured in turn in one run.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from twostage.config import DefectConfig
from twostage.defects import DefectSampler, SourcePool
from twostage_kernels import paste_defects

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Defect:
    """One defect as OpenCV and Pillow take it."""

    vertices: Pixels  # [n, 2]
    matrix: Pixels  # [2, 3], target pixel centres at whole numbers -> source
    sigma: float
    strength: float


@dataclass(frozen=True)
class Batch:
    target: Tensor  # [B, 3, S, S] in [0, 1]
    source: Tensor  # [B, 3, S, S]
    arguments: dict[str, Any]
    defects: list[Defect]


def make_batch(count: int, size: int, dtype: torch.dtype) -> Batch:
    """One defect for every image, drawn as training draws them by default."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, count, 3, size, size, generator=generator)
    config = DefectConfig(probability=1.0, max_defects=1, brightness=0, contrast=(1, 1))
    pool = SourcePool(list(images[1]), None, 1)
    drawn = DefectSampler(config, pool, size, 0).draw(torch.arange(count), torch.arange(count), 0)
    vertices, counts = drawn.vertices, drawn.vertex_count
    arguments: dict[str, Any] = {
        "vertices": vertices,
        "vertex_count": counts,
        "image_index": torch.arange(count),
        "source_index": torch.arange(count).flip(0),
        "transform": drawn.transform,
        "blur_sigma": drawn.blur_sigma,
        "strength": drawn.strength,
    }
    defects = []
    for i in range(count):
        matrix = drawn.transform[i].double().numpy().copy()
        matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
        defects.append(
            Defect(vertices[i, : int(counts[i])].numpy(), matrix, float(drawn.blur_sigma[i]), float(drawn.strength[i]))
        )
    scaled = (images * 255).round().byte() if dtype == torch.uint8 else images.to(dtype)
    return Batch(scaled[0], scaled[1], arguments, defects)


def opencv_one(target: Pixels, source: Pixels, defect: Defect) -> tuple[Pixels, Pixels]:
    """The pipeline on the whole image [S, S, 3]."""
    height, width = target.shape[:2]
    mask: Pixels = np.zeros((height, width), np.float32)
    cv2.fillPoly(mask, [np.round((defect.vertices - 0.5) * 16).astype(np.int32)], 1.0, shift=4)
    cut = cv2.warpAffine(
        source,
        defect.matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    cut = cut * mask[..., None]
    taps = 2 * math.ceil(3 * defect.sigma) + 1
    cut = cv2.GaussianBlur(cut, (taps, taps), defect.sigma, borderType=cv2.BORDER_CONSTANT)
    mask = cv2.GaussianBlur(mask, (taps, taps), defect.sigma, borderType=cv2.BORDER_CONSTANT)
    opacity = mask * defect.strength
    return target * (1 - opacity[..., None]) + cut * defect.strength, opacity


def opencv_box(target: Pixels, source: Pixels, defect: Defect) -> tuple[Pixels, Pixels]:
    """The same where the polygon and its blur reach."""
    height, width = target.shape[:2]
    reach = math.ceil(3 * defect.sigma)
    left, top = np.maximum(np.floor(defect.vertices.min(0)) - reach, 0).astype(int)
    right, bottom = np.minimum(np.ceil(defect.vertices.max(0)) + reach, (width, height)).astype(int)
    image, opacity = target.copy(), np.zeros((height, width), np.float32)
    if right <= left or bottom <= top:
        return image, opacity
    corner = np.array((left, top), np.float32)
    matrix = defect.matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ corner
    moved = Defect(defect.vertices - corner, matrix, defect.sigma, defect.strength)
    # A wrapper of opencv_one whose target is the box alone.
    image[top:bottom, left:right], opacity[top:bottom, left:right] = opencv_one(
        target[top:bottom, left:right], source, moved
    )
    return image, opacity


def pillow_one(target: Image.Image, source: Image.Image, defect: Defect) -> tuple[Image.Image, Image.Image]:
    """The pipeline on uint8 images, which are what Pillow blurs; the edge is blurred, the cut-out pasted under it."""
    mask = Image.new("L", target.size, 0)
    ImageDraw.Draw(mask).polygon([(float(x) - 0.5, float(y) - 0.5) for x, y in defect.vertices], fill=255)
    matrix = tuple(float(value) for value in defect.matrix.flatten())
    cut = source.transform(target.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    cut = cut.filter(ImageFilter.GaussianBlur(defect.sigma))
    mask = mask.filter(ImageFilter.GaussianBlur(defect.sigma)).point(lambda value: value * defect.strength)
    return Image.composite(cut, target, mask), mask


def runners(batch: Batch, workers: ThreadPoolExecutor) -> dict[str, Callable[[], Any]]:
    """What is timed. OpenCV and Pillow get their images in their own layout beforehand."""
    dtype = np.uint8 if batch.target.dtype == torch.uint8 else np.float32
    targets = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()).astype(dtype) for image in batch.target]
    sources = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()).astype(dtype) for image in batch.source.flip(0)]
    in_place, copied = batch.target.clone(), batch.target.clone()

    def loop(function: Callable[..., Any], first: list[Any], second: list[Any]) -> Callable[[], Any]:
        return lambda: list(workers.map(function, first, second, batch.defects))

    def pictures(images: list[Pixels]) -> list[Image.Image]:
        return [
            Image.fromarray(np.round(image * (1 if dtype == np.uint8 else 255)).astype(np.uint8)) for image in images
        ]

    def native(**options: Any) -> Callable[[], Any]:
        return lambda: paste_defects(batch.target, batch.source, **batch.arguments, backend="native", **options)

    return {
        "copy": lambda: copied.copy_(batch.target),
        "native": native(),
        "native, out=target": lambda: paste_defects(
            in_place, batch.source, **batch.arguments, backend="native", out=in_place
        ),
        "opencv": loop(opencv_one, targets, sources),
        "opencv, boxes": loop(opencv_box, targets, sources),
        "pillow (uint8)": loop(pillow_one, pictures(targets), pictures(sources)),
    }


def require_equal_work(batch: Batch) -> None:
    """OpenCV's images are ours but for its edge rule and the sixteenths of a pixel it works in."""
    images, _ = paste_defects(batch.target, batch.source, **batch.arguments)
    for i, defect in enumerate(batch.defects):
        target, source = (
            np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in (batch.target[i], batch.source.flip(0)[i])
        )
        for function in (opencv_one, opencv_box):
            other, _ = function(target, source, defect)
            error = float(np.abs(other - images[i].permute(1, 2, 0).numpy()).mean())
            if error > 0.01:
                raise RuntimeError(f"image {i}: {function.__name__} differs by {error:.3g} on average")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--uint8", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    require_equal_work(make_batch(options.count, options.size, torch.float32))
    batch = make_batch(options.count, options.size, torch.uint8 if options.uint8 else torch.float32)
    times: dict[str, list[float]] = {}
    with ThreadPoolExecutor(torch.get_num_threads()) as workers:
        running = runners(batch, workers)
        for repeat in range(options.repeats + 2):
            for name, run in running.items():
                start = time.perf_counter()
                run()
                if repeat >= 2:
                    times.setdefault(name, []).append(time.perf_counter() - start)
    copy = statistics.median(times["copy"])
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:20} {1e3 * middle:8.3f} ms  {middle / copy:6.2f} x copy")


if __name__ == "__main__":
    main()
