"""Pasting one defect into every image of a batch, beside loops over OpenCV and Pillow and beside a plain copy."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from tolerances import tolerance
from torch import Tensor

from benchmarks.backends import timed_backends
from benchmarks.case import Absent, Case, Contender, Least, Role
from benchmarks.peers.paste import PASTE_PEERS, Batch, Defect, Images
from twostage_kernels import paste_defects

Shape = tuple[int, int, int, int]
SIZES: dict[str, tuple[Shape, ...]] = {
    "cpu": ((64, 3, 128, 128),),
    "cuda": ((256, 3, 128, 128), (32, 3, 512, 512)),
}


class Pasted(NamedTuple):
    images: Tensor  # [B, C, H, W]
    opacity: Tensor  # [B, 1, H, W]


def _inputs(shape: Shape, device: str, seed: int) -> Batch:
    """Convex polygons with 3 to 7 vertices, a fifth to three fifths of the image across; blur of 0.5 to 2 pixels."""
    count, _, height, width = shape
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(size or (count,), generator=generator)

    target, source = (torch.rand(shape, generator=generator) for _ in range(2))
    vertex_count = torch.randint(3, 8, (count,), generator=generator)
    slot = torch.arange(7)
    angle = (slot + between(0, 0.8, count, 7)) * 2 * math.pi / vertex_count.unsqueeze(1)
    centre = between(0.25, 0.75, count, 2) * torch.tensor([width, height])
    radius = between(0.1, 0.3, count, 1) * min(height, width)
    circle = torch.stack((angle.cos(), angle.sin()), dim=2)
    used = (slot < vertex_count.unsqueeze(1)).unsqueeze(2)
    vertices = torch.where(used, centre.unsqueeze(1) + radius.unsqueeze(1) * circle, 0)
    turn, scale = between(0, 2 * math.pi), between(0.5, 2)
    linear = torch.stack((turn.cos(), -turn.sin(), turn.sin(), turn.cos()), dim=1).view(count, 2, 2)
    linear = linear * scale.view(-1, 1, 1)
    middle = torch.tensor([width, height]).view(1, 2, 1) / 2
    arguments = {
        "target": target,
        "source": source,
        "vertices": vertices,
        "vertex_count": vertex_count,
        "image_index": torch.arange(count),
        "source_index": torch.arange(count),
        "transform": torch.cat((linear, middle - linear @ centre.unsqueeze(2)), dim=2),
        "blur_sigma": between(0.5, 2),
        "strength": between(0.7, 1),
    }
    defects = [
        Defect(
            vertices[i, : vertex_count[i]].numpy(),
            arguments["transform"][i].numpy(),
            float(arguments["blur_sigma"][i]),
            float(arguments["strength"][i]),
        )
        for i in range(count)
    ]
    on_device = {name: tensor.to(device) for name, tensor in arguments.items()}
    return Batch(on_device, Images.of(target, source), defects)


def _paste(backend: str, batch: Batch) -> Pasted:
    return Pasted(*paste_defects(**batch.arguments, backend=backend))


def _truth(batch: Batch) -> Pasted:
    double = {
        name: tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in batch.arguments.items()
    }
    return Pasted(*paste_defects(**double, backend="reference"))


def _judge(result: Pasted, truth: Pasted, role: Role) -> float:
    images, opacity = ((got.cpu().double() - expected).abs() for got, expected in zip(result, truth, strict=True))
    if role == "ours":
        worst = float(images.max()) / tolerance("paste image", torch.float32)
        return max(worst, float(opacity.max()) / tolerance("paste opacity", torch.float32))
    # Other packages own other edge pixels, so single pixels may differ by much; all of them together may not.
    pasted = truth.opacity.sum()
    worst = max(float(opacity.sum() / pasted), float(images.mean(dim=1).sum() / pasted))
    return worst / tolerance("same paste", torch.float32)


def _contenders(device: str) -> Sequence[Contender | Absent]:
    def adapt(paste: Callable[[Batch], tuple[Tensor, Tensor]]) -> Callable[[Batch], Pasted]:
        return lambda batch: Pasted(*paste(batch))

    return [
        *(Contender(name, "ours", partial(_paste, name)) for name in timed_backends("paste_defects", device)),
        Contender("copy of the batch", "yardstick", lambda batch: batch.arguments["target"].clone()),
        *(peer.load(device, adapt) for peer in PASTE_PEERS),
    ]


def _least(batch: Batch) -> Least:
    """Targets read, images and opacity written; polygons with their blurred margin sampled and blurred."""
    count, channels, height, width = batch.arguments["target"].shape
    multiply_adds = 0
    for defect in batch.defects:
        taps = 2 * math.ceil(3 * defect.blur_sigma) + 1
        rows, columns = (int(extent) + taps for extent in defect.vertices.max(axis=0) - defect.vertices.min(axis=0))
        multiply_adds += rows * columns * (channels + 1) * 2 * taps
    return Least(4 * count * height * width * (2 * channels + 1), multiply_adds)


def _case(shape: Shape, device: str, *groups: str) -> Case:
    return Case(
        op="paste_defects",
        task="one defect each",
        shape=shape,
        device=device,
        inputs=partial(_inputs, shape, device),
        contenders=partial(_contenders, device),
        truth=_truth,
        judge=_judge,
        least=_least,
        groups=frozenset(groups),
    )


def cases(device: str) -> list[Case]:
    return [_case(shape, device, "kernel") for shape in SIZES[device]]


def small_cases(device: str) -> list[Case]:
    """One image narrower than a tile, and several that are no multiple of one."""
    return [_case(shape, device) for shape in ((1, 1, 20, 9), (3, 3, 45, 70))]
