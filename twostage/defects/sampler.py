"""The artificial defect generation algorithm (ADGA): what every sample's defects are (Sec. 3.2)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twostage.config import DefectConfig
from twostage.counter_random import uniform
from twostage.data.patches import to_unit_range
from twostage.defects.sources import SourcePool
from twostage_kernels import paste_defects

_COUNT_STREAM = 3
_DEFECT_STREAM = 4
_MAX_VERTICES = 7
_SHAPE_DRAWS = 15
_DRAWS = _SHAPE_DRAWS + 2 * _MAX_VERTICES


@dataclass(frozen=True)
class Polygons:
    """The defects of a batch, in the order they are pasted. P polygons; pixels are those of the target patch."""

    image_index: Tensor  # [P] int64, the patch of the batch
    vertices: Tensor  # [P, 7, 2] (x, y)
    vertex_count: Tensor  # [P] int64
    source_image: Tensor  # [P] int64, index into the source pool
    source_position: Tensor  # [P, 2] in [0, 1): where in the source image the cut lies (y, x)
    transform: Tensor  # [P, 2, 3] target pixels -> pixels of the source cut
    blur_sigma: Tensor  # [P]
    strength: Tensor  # [P]
    brightness: Tensor  # [P]
    contrast: Tensor  # [P]


class DefectSampler:
    """Draws and pastes defects; those of a sample depend on (seed, epoch, sample) and its image alone.

    Args:
        config: the ranges.
        pool: the source images and their ranking.
        patch_size: side of the patches in pixels.
        seed: of all draws.
    """

    def __init__(self, config: DefectConfig, pool: SourcePool, patch_size: int, seed: int) -> None:
        self.config = config
        self.pool = pool
        self.patch_size = patch_size
        self.seed = seed

    def draw(self, samples: Tensor, images: Tensor, epoch: int) -> Polygons:
        """The defects of the given sample numbers, int64 [B], cut from the given images of the pool's targets."""
        config = self.config
        slots = config.max_defects
        batch = len(samples)
        counts = uniform(samples, 2, seed=self.seed, stream=_COUNT_STREAM, epoch=epoch)
        wanted = torch.where(counts[:, 0] < config.probability, 1 + (counts[:, 1] * slots).long(), 0)
        slot = torch.arange(slots).expand(batch, slots)
        chosen = (slot < wanted.unsqueeze(1)).flatten()
        slot_samples = (samples.unsqueeze(1) * slots + slot).flatten()[chosen]
        image_index = torch.arange(batch).repeat_interleave(slots)[chosen]
        u = uniform(slot_samples, _DRAWS, seed=self.seed, stream=_DEFECT_STREAM, epoch=epoch)
        vertices, vertex_count, centre = self._shape(u)
        candidates = self.pool.nearest[images[image_index]]
        rank = (u[:, 6] * candidates.shape[1]).long()
        return Polygons(
            image_index=image_index,
            vertices=vertices,
            vertex_count=vertex_count,
            source_image=candidates.gather(1, rank.unsqueeze(1)).squeeze(1),
            source_position=u[:, 7:9],
            transform=self._source_transform(u, centre),
            blur_sigma=_between(u[:, 11], config.blur_sigma),
            strength=_between(u[:, 12], config.strength),
            brightness=(2 * u[:, 13] - 1) * config.brightness,
            contrast=_between(u[:, 14], config.contrast),
        )

    def paste(self, patches: Tensor, polygons: Polygons) -> tuple[Tensor, Tensor]:
        """Defective patches and opacity: [B, C, P, P] in [0, 1] -> the same and [B, 1, P, P]."""
        if len(polygons.image_index) == 0:
            return patches, torch.zeros_like(patches[:, :1])
        return paste_defects(
            patches,
            self._cuts(polygons),
            polygons.vertices,
            polygons.vertex_count,
            polygons.image_index,
            torch.arange(len(polygons.image_index)),
            polygons.transform,
            polygons.blur_sigma,
            strength=polygons.strength,
        )

    def _shape(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Star-shaped polygons with 3 to 7 vertices sorted by angle: vertices, their number, centres."""
        config = self.config
        count = 3 + (u[:, 0] * 5).long()
        half_length = _between_log(u[:, 1], config.size) * self.patch_size / 2
        half_width = (half_length / _between_log(u[:, 2], config.elongation)).clamp_min(1.0)
        rotation = u[:, 3:4] * (2 * math.pi)
        jitter = u[:, _SHAPE_DRAWS : _SHAPE_DRAWS + _MAX_VERTICES]
        radius = 0.5 + 0.5 * u[:, _SHAPE_DRAWS + _MAX_VERTICES :]
        slot = torch.arange(_MAX_VERTICES)
        # Each angle stays inside its own sector, so the vertices are in order and the polygon is simple.
        angle = (slot + 0.8 * jitter) * (2 * math.pi) / count.unsqueeze(1)
        along = half_length.unsqueeze(1) * radius * torch.cos(angle)
        across = half_width.unsqueeze(1) * radius * torch.sin(angle)
        x = along * torch.cos(rotation) - across * torch.sin(rotation)
        y = along * torch.sin(rotation) + across * torch.cos(rotation)
        centre = u[:, 4:6] * self.patch_size
        used = (slot < count.unsqueeze(1)).unsqueeze(2)
        vertices = torch.where(used, torch.stack((x, y), dim=2) + centre.unsqueeze(1), 0)
        return vertices, count, centre

    def _source_transform(self, u: Tensor, centre: Tensor) -> Tensor:
        """The affine map that turns and resizes the cut about the middle of its source: [P, 2, 3]."""
        magnification = _between_log(u[:, 9], self.config.resize)
        angle = u[:, 10] * (2 * math.pi)
        cos, sin = torch.cos(angle) / magnification, torch.sin(angle) / magnification
        linear = torch.stack((torch.stack((cos, -sin), dim=1), torch.stack((sin, cos), dim=1)), dim=1)
        offset = self.patch_size / 2 - (linear @ centre.unsqueeze(2)).squeeze(2)
        return torch.cat((linear, offset.unsqueeze(2)), dim=2)

    def _cuts(self, polygons: Polygons) -> Tensor:
        """One source cut for each polygon, with its brightness and contrast changed: [P, C, S, S]."""
        size = self.patch_size
        cuts = []
        positions = polygons.source_position.tolist()
        for index, (down, across) in zip(polygons.source_image.tolist(), positions, strict=True):
            image = self.pool.images[index]
            top = int(down * (image.shape[1] - size + 1))
            left = int(across * (image.shape[2] - size + 1))
            cuts.append(to_unit_range(image[:, top : top + size, left : left + size]))
        stack = torch.stack(cuts)
        mean = stack.mean(dim=(2, 3), keepdim=True)
        contrast, brightness = polygons.contrast.view(-1, 1, 1, 1), polygons.brightness.view(-1, 1, 1, 1)
        return ((stack - mean) * contrast + mean + brightness).clamp(0, 1)


def _between(u: Tensor, bounds: tuple[float, float]) -> Tensor:
    return bounds[0] + u * (bounds[1] - bounds[0])


def _between_log(u: Tensor, bounds: tuple[float, float]) -> Tensor:
    return bounds[0] * (bounds[1] / bounds[0]) ** u
