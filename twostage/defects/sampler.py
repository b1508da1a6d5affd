"""The artificial defect generation algorithm (ADGA): what every sample's defects are (Sec. 3.2)."""

import math
from copy import copy
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from twostage.config import DefectConfig
from twostage.counter_random import uniform
from twostage.defects.appearance import MEAN_GRID
from twostage.defects.pools import Pool
from twostage.devices import sent
from twostage_kernels import BLEND_MODES, paste_defects

_COUNT_STREAM = 3
_DEFECT_STREAM = 4
_MAX_VERTICES = 7
_SHAPE_DRAWS = 15
_EXTRA_DRAWS = _SHAPE_DRAWS + 2 * _MAX_VERTICES
_DRAWS = _EXTRA_DRAWS + 4
# Vertices lie on multiples of this many pixels: what devices round differently does not move a pixel in or out.
_VERTEX_STEP = 2.0**-8
_MOST_BLUR = 64.0  # pixels; paste_defects takes no more


@dataclass(frozen=True)
class Polygons:
    """The defects of a batch: as many slots for every image, in the order they are pasted, P in all.

    Slots that are not used have no vertices, and other values without meaning. Pixels are those of the target patch.
    """

    vertices: Tensor  # [P, 7, 2] (x, y)
    vertex_count: Tensor  # [P] int64, 0 for a slot that is not used
    source_image: Tensor  # [P] int64, index into the source pool
    transform: Tensor  # [P, 2, 3] target pixels -> pixels of the source image
    blur_sigma: Tensor  # [P]
    strength: Tensor  # [P]
    color_gain: Tensor  # [P, C] factor on the cut-out's values
    color_offset: Tensor  # [P, C] added to them
    blend_mode: Tensor | None  # [P] int64; None: all lie on top
    edge_amplitude: Tensor | None  # [P]; None: straight edges
    edge_grain: Tensor | None  # [P]
    edge_seed: Tensor | None  # [P] int64

    def split(self, batches: int) -> list["Polygons"]:
        """Those of equally large parts of the images."""
        values = (getattr(self, field.name) for field in fields(self))
        parts = ([None] * batches if value is None else value.chunk(batches) for value in values)
        return [Polygons(*part) for part in zip(*parts, strict=True)]


class DefectSampler:
    """Draws and pastes defects; those of a sample depend on (seed, epoch, sample) and its image alone.

    Everything happens on the device of the pool, and nothing is read back from it.

    Args:
        config: the ranges.
        pool: the source images and their ranking.
        patch_size: side of the patches in pixels.
        seed: of all draws.
    """

    def __init__(self, config: DefectConfig, pool: Pool, patch_size: int, seed: int) -> None:
        self.config = config
        self.pool = pool
        self.patch_size = patch_size
        self.seed = seed

    def to(self, device: torch.device) -> "DefectSampler":
        """The same sampler at work on ``device``."""
        moved = copy(self)
        moved.pool = self.pool.to(device)
        return moved

    def draw(self, samples: Tensor, images: Tensor, epoch: int) -> Polygons:
        """The defects of the given sample numbers, int64 [B], cut from the given images of the pool's targets."""
        config, device = self.config, self.pool.values.device
        candidates = self.pool.candidates_of(images)
        samples = sent(samples, device)
        slots = config.max_defects
        counts = uniform(samples, 2, seed=self.seed, stream=_COUNT_STREAM, epoch=epoch)
        wanted = torch.where(counts[:, 0] < config.probability, 1 + (counts[:, 1] * slots).long(), 0)
        slot = torch.arange(slots, device=device)
        used = (slot < wanted.unsqueeze(1)).flatten()
        slot_samples = (samples.unsqueeze(1) * slots + slot).flatten()
        u = uniform(slot_samples, _DRAWS, seed=self.seed, stream=_DEFECT_STREAM, epoch=epoch)
        half_length, half_width = self._ellipse(u)
        vertices, vertex_count, centre = self._shape(u, half_length, half_width)
        rank = (u[:, 6] * candidates.shape[1]).long().view(-1, slots)
        source = candidates.gather(1, rank).flatten()
        transform, mean = self._cut(u, source, centre, half_length)
        gain, offset = self._color(u, mean)
        noisy = config.edge_amplitude[1] > 0
        return Polygons(
            vertices=vertices,
            vertex_count=torch.where(used, vertex_count, 0),
            source_image=source,
            transform=transform,
            blur_sigma=self._blur(u[:, 11], half_width),
            strength=_between(u[:, 12], config.strength),
            color_gain=gain,
            color_offset=offset,
            blend_mode=self._blend_mode(u[:, _EXTRA_DRAWS], darker=u[:, 13] < 0.5),
            edge_amplitude=_between(u[:, _EXTRA_DRAWS + 1], config.edge_amplitude) if noisy else None,
            edge_grain=_between_log(u[:, _EXTRA_DRAWS + 2], config.edge_grain) if noisy else None,
            edge_seed=(u[:, _EXTRA_DRAWS + 3] * 2**24).long() if noisy else None,
        )

    def paste(self, patches: Tensor, polygons: Polygons) -> tuple[Tensor, Tensor]:
        """Defective patches and opacity: [B, C, P, P] in [0, 1] -> the same and [B, 1, P, P]."""
        return paste_defects(
            patches,
            self.pool.values,
            polygons.vertices,
            polygons.vertex_count,
            None,
            polygons.source_image,
            polygons.transform,
            polygons.blur_sigma,
            source_layout=self.pool.layout,
            strength=polygons.strength,
            color_gain=polygons.color_gain,
            color_offset=polygons.color_offset,
            blend_mode=polygons.blend_mode,
            edge_amplitude=polygons.edge_amplitude,
            edge_grain=polygons.edge_grain,
            edge_seed=polygons.edge_seed,
        )

    def _ellipse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Half the length and half the width of what holds each polygon, in pixels."""
        half_length = _between_log(u[:, 1], self.config.size) * self.patch_size / 2
        return half_length, (half_length / _between_log(u[:, 2], self.config.elongation)).clamp_min(1.0)

    def _blur(self, u: Tensor, half_width: Tensor) -> Tensor:
        """Standard deviations in pixels. One draw for both ranges: what is soft for its size is soft in pixels too."""
        least = _between(u, self.config.blur_sigma)
        return torch.maximum(least, _between(u, self.config.blur_share) * half_width).clamp_max(_MOST_BLUR)

    def _shape(self, u: Tensor, half_length: Tensor, half_width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Star-shaped polygons with 3 to 7 vertices sorted by angle: vertices, their number, centres."""
        count = 3 + (u[:, 0] * 5).long()
        rotation = u[:, 3:4] * (2 * math.pi)
        jitter = u[:, _SHAPE_DRAWS : _SHAPE_DRAWS + _MAX_VERTICES]
        radius = 0.5 + 0.5 * u[:, _SHAPE_DRAWS + _MAX_VERTICES : _EXTRA_DRAWS]
        slot = torch.arange(_MAX_VERTICES, device=u.device)
        # Each angle stays inside its own sector, so the vertices are in order and the polygon is simple.
        angle = (slot + 0.8 * jitter) * (2 * math.pi) / count.unsqueeze(1)
        along = half_length.unsqueeze(1) * radius * torch.cos(angle)
        across = half_width.unsqueeze(1) * radius * torch.sin(angle)
        x = along * torch.cos(rotation) - across * torch.sin(rotation)
        y = along * torch.sin(rotation) + across * torch.cos(rotation)
        centre = u[:, 4:6] * self.patch_size
        used = (slot < count.unsqueeze(1)).unsqueeze(2)
        vertices = torch.stack((x, y), dim=2) + centre.unsqueeze(1)
        vertices = (vertices / _VERTEX_STEP).round() * _VERTEX_STEP
        return torch.where(used, vertices, 0), count, centre

    def _cut(self, u: Tensor, source: Tensor, centre: Tensor, half_length: Tensor) -> tuple[Tensor, Tensor]:
        """Where each polygon is cut out: the affine map [P, 2, 3] into its source image, and the mean there [P, C].

        The cut is turned and resized about its middle, which lies at a random place; all of it lies within the source
        image where that is large enough.
        """
        magnification = _between_log(u[:, 9], self.config.resize)
        angle = u[:, 10] * (2 * math.pi)
        cos, sin = torch.cos(angle) / magnification, torch.sin(angle) / magnification
        linear = torch.stack((torch.stack((cos, -sin), dim=1), torch.stack((sin, cos), dim=1)), dim=1)
        size = self.pool.layout[source][:, 1:].flip(1).to(u.dtype)  # width, height
        reach = (half_length / magnification + 1).unsqueeze(1)
        margin = torch.minimum(reach, size / 2)
        middle = margin + u[:, 7:9] * (size - 2 * margin)
        offset = middle - (linear * centre.unsqueeze(1)).sum(dim=2)
        cell = (middle / size * MEAN_GRID).long().clamp(0, MEAN_GRID - 1)
        mean = self.pool.means[source, :, cell[:, 1], cell[:, 0]]
        return torch.cat((linear, offset.unsqueeze(2)), dim=2), mean

    def _color(self, u: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and offset [P, C] that change the contrast about ``mean``, then go some way to white or black."""
        shift = ((2 * u[:, 13] - 1) * self.config.brightness).unsqueeze(1)
        contrast = _between(u[:, 14], self.config.contrast).unsqueeze(1)
        rest = 1 - shift.abs()
        gain = (contrast * rest).expand_as(mean)
        return gain, mean * (1 - contrast) * rest + shift.clamp_min(0)

    def _blend_mode(self, u: Tensor, darker: Tensor) -> Tensor | None:
        if self.config.blend == "normal":
            return None
        if self.config.blend == "any":
            # A darker cut-out that only lightens would not be seen. Compared, not looked up: a table had to be copied.
            draw = (u * 3).long()
            strong = torch.where(darker, BLEND_MODES.index("multiply"), BLEND_MODES.index("screen"))
            mild = torch.where(darker, BLEND_MODES.index("darken"), BLEND_MODES.index("lighten"))
            return torch.where(draw == 0, BLEND_MODES.index("normal"), torch.where(draw == 1, strong, mild))
        return torch.full_like(u, BLEND_MODES.index(self.config.blend), dtype=torch.int64)


def _between(u: Tensor, bounds: tuple[float, float]) -> Tensor:
    return bounds[0] + u * (bounds[1] - bounds[0])


def _between_log(u: Tensor, bounds: tuple[float, float]) -> Tensor:
    return bounds[0] * (bounds[1] / bounds[0]) ** u
