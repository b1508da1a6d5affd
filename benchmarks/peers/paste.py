"""Blurred polygon cut-outs pasted with other packages, as well as each of them allows."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.peers import Peer

Array = npt.NDArray[Any]


class Defect(NamedTuple):
    """One polygon."""

    vertices: Array  # [3..7, 2] (x, y) in target pixels
    transform: Array  # [2, 3] target pixels -> source pixels
    blur_sigma: float
    strength: float


class Images(NamedTuple):
    """Targets and sources with channels last: float32 in [0, 1], and uint8."""

    target: Array  # [B, H, W, C]
    source: Array
    target_bytes: Array
    source_bytes: Array

    @classmethod
    def of(cls, target: Tensor, source: Tensor) -> "Images":
        """From [B, C, H, W] in [0, 1]."""
        last = [image.permute(0, 2, 3, 1).contiguous().numpy() for image in (target, source)]
        return cls(*last, *((image * 255).round().astype(np.uint8) for image in last))


class Batch(NamedTuple):
    """The arguments of ``paste_defects`` by name, and the same once more as loops over single images want them."""

    arguments: dict[str, Any]
    images: Images
    defects: list[Defect]


Paste = Callable[[Batch], tuple[Tensor, Tensor]]


class Box(NamedTuple):
    """The pixels that a defect can reach."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, defect: Defect, height: int, width: int) -> "Box":
        margin = math.ceil(3 * defect.blur_sigma) + 1
        left, top = (int(low) - margin for low in defect.vertices.min(axis=0))
        right, bottom = (int(high) + margin + 1 for high in defect.vertices.max(axis=0))
        return cls(max(left, 0), max(top, 0), min(right, width), min(bottom, height))

    def transform(self, matrix: Array) -> Array:
        """``matrix``, in which pixels have their centres at halves, for this box with centres at whole numbers."""
        shifted = matrix.astype(np.float64)
        shifted[:, 2] += shifted[:, :2] @ (self.left + 0.5, self.top + 0.5) - 0.5
        return shifted


def _for_each_image(paste_one: Callable[[int], None], count: int) -> None:
    """On as many threads as torch uses; both packages let go of the interpreter while they work."""
    list(_workers(torch.get_num_threads()).map(paste_one, range(count)))


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _with_channels_first(images: Array, opacity: Array) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(opacity).unsqueeze(1)


def _opencv() -> Paste:
    import cv2

    fraction_bits = 4
    cv2.setNumThreads(1)  # each image is small; images are what threads share out

    def paste(batch: Batch) -> tuple[Tensor, Tensor]:
        images = batch.images.target.copy()
        count, height, width, _ = images.shape
        opacity = np.zeros((count, height, width), np.float32)

        def paste_one(i: int) -> None:
            defect = batch.defects[i]
            box = Box.around(defect, height, width)
            size = (box.right - box.left, box.bottom - box.top)
            mask = np.zeros(size[::-1], np.float32)
            corners = (defect.vertices - (box.left + 0.5, box.top + 0.5)) * (1 << fraction_bits)
            cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1.0, shift=fraction_bits)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            matrix = box.transform(defect.transform)
            content = cv2.warpAffine(batch.images.source[i], matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            cut = np.dstack((content.reshape(*mask.shape, -1) * mask[..., None], mask))
            taps = 2 * math.ceil(3 * defect.blur_sigma) + 1
            cv2.GaussianBlur(cut, (taps, taps), defect.blur_sigma, dst=cut, borderType=cv2.BORDER_CONSTANT)
            cut *= defect.strength
            place = (i, slice(box.top, box.bottom), slice(box.left, box.right))
            images[place] = images[place] * (1 - cut[..., -1:]) + cut[..., :-1]
            opacity[place] = cut[..., -1]

        _for_each_image(paste_one, count)
        return _with_channels_first(images, opacity)

    return paste


def _pillow() -> Paste:
    """In 8 bits, which is all that Pillow can blur; its blur is three box blurs."""
    from PIL import Image, ImageDraw, ImageFilter

    def paste(batch: Batch) -> tuple[Tensor, Tensor]:
        images = batch.images.target_bytes.copy()
        count, height, width, channels = images.shape
        opacity = np.zeros((count, height, width), np.uint8)

        def paste_one(i: int) -> None:
            defect = batch.defects[i]
            box = Box.around(defect, height, width)
            size = (box.right - box.left, box.bottom - box.top)
            mask = Image.new("L", size)
            corners = defect.vertices - (box.left + 0.5, box.top + 0.5)
            ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], fill=round(255 * defect.strength))
            mask = mask.filter(ImageFilter.GaussianBlur(defect.blur_sigma))
            source = Image.fromarray(batch.images.source_bytes[i].squeeze())
            # Pillow takes pixels at their corners, and shifts by half a pixel itself.
            matrix = box.transform(defect.transform)
            matrix[:, 2] += 0.5 - matrix[:, :2] @ (0.5, 0.5)
            content = source.transform(
                size, Image.Transform.AFFINE, matrix.flatten().tolist(), Image.Resampling.BILINEAR
            )
            place = (i, slice(box.top, box.bottom), slice(box.left, box.right))
            under = Image.fromarray(images[place].squeeze())
            images[place] = np.asarray(Image.composite(content, under, mask)).reshape(*size[::-1], channels)
            opacity[place] = np.asarray(mask)

        _for_each_image(paste_one, count)
        pasted, covered = _with_channels_first(images, opacity)
        return pasted / 255, covered / 255

    return paste


def _kornia() -> Paste:
    """The whole batch at once, on any device; every image blurred with as many taps as the widest blur needs."""
    from kornia.filters import gaussian_blur2d
    from kornia.geometry.transform import warp_affine
    from kornia.image.draw import draw_convex_polygon

    def paste(batch: Batch) -> tuple[Tensor, Tensor]:
        given = batch.arguments
        target = given["target"]
        count, _, height, width = target.shape
        slot = torch.arange(7, device=target.device).expand(count, 7)
        # Rows past the last vertex repeat it.
        slot = torch.minimum(slot, given["vertex_count"].unsqueeze(1) - 1).unsqueeze(2).expand(-1, -1, 2)
        corners = given["vertices"].gather(1, slot) - 0.5
        mask = draw_convex_polygon(target.new_zeros(count, 1, height, width), corners, target.new_ones(count, 1))
        linear, offset = given["transform"][:, :, :2], given["transform"][:, :, 2:]
        half = target.new_full((count, 2, 1), 0.5)
        inverse = torch.linalg.inv(linear)
        matrix = torch.cat((inverse, inverse @ (half - offset) - half), dim=2)
        content = warp_affine(given["source"], matrix, (height, width), padding_mode="border")
        taps = 2 * math.ceil(3 * max(defect.blur_sigma for defect in batch.defects)) + 1
        sigma = given["blur_sigma"].unsqueeze(1).expand(-1, 2)
        cut = gaussian_blur2d(torch.cat((content * mask, mask), dim=1), (taps, taps), sigma, border_type="constant")
        cut = cut * given["strength"].view(-1, 1, 1, 1)
        return target * (1 - cut[:, -1:]) + cut[:, :-1], cut[:, -1:]

    return paste


def _anomalib() -> Paste:
    """Perlin noise above a threshold as the mask, one image at a time: another picture for the same purpose."""
    from anomalib.data.utils.generators.perlin import generate_perlin_noise

    def paste(batch: Batch) -> tuple[Tensor, Tensor]:
        target, source = batch.arguments["target"], batch.arguments["source"]
        height, width = target.shape[2:]
        noise = [generate_perlin_noise(height, width, device=target.device) for _ in target]
        mask = (torch.stack(noise).unsqueeze(1) > 0.5).to(target.dtype)
        return target * (1 - mask) + source * mask, mask

    return paste


PASTE_PEERS = (
    Peer("OpenCV loop", _opencv, "opencv-python-headless", devices=("cpu",)),
    Peer("Pillow loop", _pillow, "pillow", devices=("cpu",)),
    Peer("kornia", _kornia),
    Peer("anomalib's Perlin", _anomalib, "anomalib", role="yardstick"),
)
