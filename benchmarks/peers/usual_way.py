"""The training as it is commonly written.

A DataLoader's workers decode with Pillow and paste with OpenCV, losses are plain torch operations, Adam is as it comes,
and every step's loss is read.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Array = npt.NDArray[Any]
Loss = Callable[[Tensor, Tensor], Tensor]

_WORKERS = 2


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """A random crop of an image for each item, and the same crop with defects.

    Args:
        paths: image files.
        count: of the items in an epoch.
        size: side of the crops in pixels.
        defective: whether defects are pasted; they are cut from other images, which are held decoded.
        held: whether all images are decoded once and kept, and not again for every item.
    """

    def __init__(self, paths: Sequence[Path], count: int, size: int, *, defective: bool, held: bool) -> None:
        self.paths = paths
        self.count = count
        self.size = size
        self.defective = defective
        self.held = [_decoded(path) for path in paths] if held or defective else []
        self.decodes = not held

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        chance = np.random.default_rng(torch.initial_seed() % 2**32 + item)
        number = item % len(self.paths)
        image = _decoded(self.paths[number]) if self.decodes else self.held[number]
        normal = self._crop(image, chance)
        given = self._with_defects(normal, number, chance) if self.defective and chance.random() < 0.9 else normal
        return _as_tensor(given), _as_tensor(normal)

    def _crop(self, image: Array, chance: np.random.Generator) -> Array:
        top, left = (int(chance.integers(side - self.size + 1)) for side in image.shape[:2])
        return image[top : top + self.size, left : left + self.size]

    def _with_defects(self, normal: Array, number: int, chance: np.random.Generator) -> Array:
        import cv2

        found = normal.astype(np.float32)
        size = self.size
        for _ in range(chance.integers(1, 5)):
            other = self.held[(number + int(chance.integers(1, len(self.held)))) % len(self.held)]
            corners = int(chance.integers(3, 8))
            angle = np.sort(chance.uniform(0, 2 * math.pi, corners))
            radius = chance.uniform(0.5, 1, corners) * size / 2 * math.exp(chance.uniform(math.log(0.1), math.log(0.9)))
            polygon = chance.uniform(0, size, 2) + np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
            mask = np.zeros((size, size), np.float32)
            cv2.fillPoly(mask, [np.rint(polygon * 16).astype(np.int32)], 1.0, shift=4)
            turned = cv2.getRotationMatrix2D((size / 2, size / 2), chance.uniform(0, 360), chance.uniform(0.5, 2))
            cut = cv2.warpAffine(self._crop(other, chance), turned, (size, size), borderMode=cv2.BORDER_REFLECT)
            cut = cut.astype(np.float32) * chance.uniform(0.5, 1.5) + chance.uniform(-60, 60)
            blur = chance.uniform(0.3, 2)
            mask = cv2.GaussianBlur(mask, (0, 0), blur)[..., None] * chance.uniform(0.7, 1)
            found = found * (1 - mask) + cv2.GaussianBlur(cut, (0, 0), blur) * mask
        return np.clip(found, 0, 255).astype(np.uint8)


class UsualTraining:
    """Epochs of it.

    Args:
        crops: what is trained on.
        batch_size: of a step.
        model: in torch's own layout.
        loss: of reconstructions and targets.
    """

    def __init__(self, crops: Crops, batch_size: int, model: nn.Module, loss: Loss) -> None:
        self.model = model.train()
        self.loss = loss
        # The workers stay, so that no epoch has to start them.
        self.batches = DataLoader(
            crops,
            batch_size,
            shuffle=True,
            num_workers=_WORKERS,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_without_threads,
        )
        self.optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)

    def train(self) -> float:
        """An epoch; returns the mean loss."""
        device = next(self.model.parameters()).device
        losses = []
        for given, normal in self.batches:
            target = normal.to(device, non_blocking=True)
            loss = self.loss(self.model(given.to(device, non_blocking=True)), target)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)


def _without_threads(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _decoded(path: Path) -> Array:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _as_tensor(image: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
