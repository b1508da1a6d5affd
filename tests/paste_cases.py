"""What the tests of ``paste_defects`` share: its arguments by name, a few polygons, and how results are compared."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tolerances import HALF_ROUNDING, tolerance
from torch import Tensor

from twostage_kernels import paste_defects

Array = NDArray[np.float64]
Points = list[tuple[float, float]]
IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))

SQUARE: Points = [(3.0, 2.0), (11.0, 2.0), (11.0, 9.0), (3.0, 9.0)]
KITE: Points = [(7.3, 1.2), (13.8, 6.1), (6.9, 13.6), (1.4, 5.2)]
STAR: Points = [(8.0, 0.5), (11.5, 14.5), (0.5, 5.0), (15.5, 5.5), (3.5, 14.0)]  # crosses itself


@dataclass(frozen=True)
class Defects:
    """The arguments of ``paste_defects`` behind the images."""

    vertices: Tensor
    vertex_count: Tensor
    image_index: Tensor
    source_index: Tensor
    transform: Tensor
    blur_sigma: Tensor
    strength: Tensor

    def paste(self, target: Tensor, source: Tensor, device: str, backend: str) -> tuple[Tensor, Tensor]:
        *positional, strength = (getattr(self, name).to(device) for name in self.__dataclass_fields__)
        return paste_defects(target.to(device), source.to(device), *positional, strength=strength, backend=backend)

    def pick(self, order: list[int]) -> "Defects":
        return Defects(*(getattr(self, name)[order] for name in self.__dataclass_fields__))


def defects(
    *polygons: Points,
    image: list[int] | None = None,
    source: list[int] | None = None,
    transform: Any = IDENTITY,
    blur: float | list[float] = 0.0,
    strength: float | list[float] = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Defects:
    """Polygons of one image, unless said otherwise; rows past the last vertex hold NaN."""
    count = len(polygons)
    vertices = torch.full((count, 7, 2), float("nan"), dtype=dtype)
    for i, polygon in enumerate(polygons):
        vertices[i, : len(polygon)] = torch.tensor(polygon, dtype=dtype).view(-1, 2)
    return Defects(
        vertices=vertices,
        vertex_count=torch.tensor([len(polygon) for polygon in polygons], dtype=torch.int32),
        image_index=torch.tensor(image or [0] * count, dtype=torch.int32),
        source_index=torch.tensor(source or [0] * count, dtype=torch.int32),
        transform=torch.tensor(transform, dtype=dtype).expand(count, 2, 3),
        blur_sigma=torch.as_tensor(blur, dtype=dtype).expand(count),
        strength=torch.as_tensor(strength, dtype=dtype).expand(count),
    )


def masks(
    polygons: list[Points],
    height: int,
    width: int,
    device: str,
    backend: str,
    dtype: torch.dtype = torch.float64,
) -> NDArray[np.bool_]:
    """The pixels of each polygon alone, [P, H, W], seen through the opacity of a hard-edged paste."""
    batch = defects(*polygons, image=list(range(len(polygons))), dtype=dtype)
    target = torch.zeros(len(polygons), 1, height, width, dtype=dtype)
    images, opacity = batch.paste(target, torch.ones(1, 1, height, width, dtype=dtype), device, backend)
    assert torch.equal(images, opacity)
    assert bool(((opacity == 0) | (opacity == 1)).all())
    return opacity[:, 0].bool().cpu().numpy()


def textured(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_images(got: Tensor, expected: Tensor | Array, name: str = "paste image") -> None:
    difference = (got.double().cpu() - torch.as_tensor(expected).double().cpu()).abs()
    assert difference.shape == got.shape
    assert float(difference.max()) <= tolerance(name, got.dtype)


def rounding(images: Tensor) -> float:
    """How far apart two roundings of nearly the same number may lie."""
    if images.dtype == torch.uint8:
        return 1.0
    return HALF_ROUNDING.get(images.dtype, 0.0) * max(1.0, float(images.abs().max()))


def assert_pasted(arguments: dict[str, Any], images: Tensor, opacity: Tensor) -> None:
    """That a backend made of arguments on the CPU, on any device, what the reference makes of them."""
    target = arguments["target"]
    expected, expected_opacity = paste_defects(**arguments, backend="reference")
    assert images.stride() == expected.stride()
    images, opacity = images.cpu(), opacity.cpu()
    bound = tolerance("paste image", images.dtype) * (1 if images.dtype.is_floating_point else 255) + rounding(images)
    assert float((images.double() - expected.double()).abs().max()) <= bound
    assert float((opacity - expected_opacity).abs().max()) <= tolerance("paste opacity", opacity.dtype)
    assert float(opacity.min()) >= 0
    assert float(opacity.max()) <= 1
    untouched = opacity.expand_as(images) == 0
    assert torch.equal(images[untouched], target[untouched])


def moved(arguments: dict[str, Any], device: str = "cuda") -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in arguments.items()}


def big_batch(*, noisy: bool = True) -> dict[str, Any]:
    """Arguments of ``paste_defects`` with enough values for several threads."""
    generator = torch.Generator().manual_seed(3)
    count = 24
    arguments = {
        "target": textured(12, 3, 96, 80, seed=1).float(),
        "source": textured(4, 3, 50, 60, seed=2).float(),
        "vertices": torch.rand(count, 7, 2, generator=generator) * 90,
        "vertex_count": 3 + torch.arange(count) % 5,
        "image_index": None,
        "source_index": torch.arange(count) % 4,
        "transform": torch.rand(count, 2, 3, generator=generator) - 0.3,
        "blur_sigma": torch.rand(count, generator=generator) * 3,
    }
    if noisy:
        arguments["edge_amplitude"] = torch.rand(count, generator=generator) * 3
        arguments["edge_grain"] = 1 + torch.rand(count, generator=generator) * 8
        arguments["edge_seed"] = torch.arange(count)
    return arguments


def any_batch(seed: int) -> dict[str, Any]:
    """Arguments of ``paste_defects`` with every option now and then: shapes, dtypes, strides, pools, empty slots."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    batch, channels, pool = choose.randint(1, 3), choose.randint(1, 4), choose.randint(1, 3)
    height, width = choose.randint(1, 70), choose.randint(1, 70)
    dtype = choose.choice([torch.float32, torch.float64, torch.uint8, torch.float16, torch.bfloat16])
    number = torch.float64 if dtype == torch.float64 else torch.float32
    in_slots = choose.random() < 0.5
    count = batch * choose.randint(0, 4) if in_slots else choose.randint(0, 10)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=number)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    def image(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        values = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return (255 * values).round().to(kind) if kind == torch.uint8 else values.to(kind)

    source_dtype = choose.choice([dtype, dtype, torch.uint8])
    sizes = [(choose.randint(1, 40), choose.randint(1, 40)) for _ in range(pool)]
    lengths = [channels * rows * columns for rows, columns in sizes]
    arguments: dict[str, Any] = {
        "target": image(batch, channels, height, width),
        "source": image(pool, channels, *sizes[0], kind=source_dtype),
        "vertices": uniform(count, 7, 2) * 1.6 * torch.tensor([width, height]) - 0.3 * max(width, height),
        "vertex_count": integers(2, 8, count),
        "image_index": None if in_slots else integers(0, batch, count),
        "source_index": integers(0, pool, count),
        "transform": (uniform(count, 2, 3) - 0.5) * torch.tensor([3, 3, 40]),
        "blur_sigma": torch.where(uniform(count) < 0.4, 0, uniform(count) * choose.choice([0.5, 3, 20])),
    }
    if choose.random() < 0.5:
        offsets = [sum(lengths[:index]) for index in range(pool)]
        arguments["source"] = image(sum(lengths), kind=source_dtype)
        arguments["source_layout"] = torch.tensor([(o, *size) for o, size in zip(offsets, sizes, strict=True)])
    for name in ("target", "source"):
        if arguments[name].ndim == 4 and choose.random() < 0.5:
            arguments[name] = arguments[name].contiguous(memory_format=torch.channels_last)
    arguments["vertex_count"][arguments["vertex_count"] == 2] = 0
    if choose.random() < 0.3:  # corners and centres of pixels
        arguments["vertices"] = (2 * arguments["vertices"]).round() / 2
    options: dict[str, Any] = {
        "strength": uniform(count),
        "color_gain": 2 * uniform(count, channels),
        "color_offset": (uniform(count, channels) - 0.5) * (255 if dtype == torch.uint8 else 1),
        "blend_mode": integers(0, 6, count),
        "value_range": (10.0, 200.0) if dtype == torch.uint8 else (-0.5, 2.0),
    }
    arguments |= {name: value for name, value in options.items() if choose.random() < 0.5}
    if choose.random() < 0.4:
        arguments["edge_amplitude"] = torch.where(uniform(count) < 0.3, 0, uniform(count) * choose.choice([3, 20]))
        arguments["edge_grain"] = 1 + 10 * uniform(count)
        arguments["edge_seed"] = integers(-(2**40), 2**40, count)
    return arguments


def operands(arguments: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of ``paste_defects`` in the order of the operators' schema."""
    order = (
        *("target", "source", "vertices", "vertex_count", "image_index", "source_index", "source_layout"),
        *("transform", "blur_sigma", "strength", "color_gain", "color_offset", "blend_mode"),
        *("edge_amplitude", "edge_grain", "edge_seed"),
    )
    return *[arguments.get(name) for name in order], *arguments.get("value_range", (0.0, 1.0))
