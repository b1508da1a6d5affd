"""Training patches: every image held once, cut at random places that depend on (seed, epoch, sample) alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twostage.counter_random import uniform

_ORDER_STREAM = 1
_POSITION_STREAM = 2


def to_unit_range(image: Tensor) -> Tensor:
    """uint8 0..255 or float images -> float32 in [0, 1]."""
    return image.to(torch.float32) / 255 if image.dtype == torch.uint8 else image.to(torch.float32)


class PatchStore:
    """Images in memory and the patches of every epoch.

    An epoch holds as many patches as it takes to tile every image once: ceil(H/P) * ceil(W/P) of each.

    Args:
        images: [C, H, W] each, uint8 or float32 in [0, 1], sides of at least ``patch_size``.
        patch_size: side of the square patches in pixels.
        seed: of the order and the positions.
    """

    def __init__(self, images: Sequence[Tensor], patch_size: int, seed: int) -> None:
        self.images = tuple(images)
        self.patch_size = patch_size
        self.seed = seed
        tiles = [-(-image.shape[1] // patch_size) * -(-image.shape[2] // patch_size) for image in self.images]
        self._owner = torch.arange(len(self.images)).repeat_interleave(torch.tensor(tiles))

    @property
    def patches_per_epoch(self) -> int:
        return len(self._owner)

    def epoch_order(self, epoch: int) -> Tensor:
        """The sample numbers 0..patches_per_epoch-1 in the order of this epoch: int64 [N]."""
        draws = uniform(torch.arange(len(self._owner)), 2, seed=self.seed, stream=_ORDER_STREAM, epoch=epoch)
        # Two 24-bit draws: ties, which a stable sort would leave in file order, do not occur in practice.
        return (draws[:, 0].double() + draws[:, 1].double() * 2.0**-24).argsort(stable=True)

    def image_of(self, samples: Tensor) -> Tensor:
        """The index of the image that each sample is cut from: int64 [B]."""
        return self._owner[samples]

    def patches(self, samples: Tensor, epoch: int) -> Tensor:
        """The patches of the given sample numbers: float32 [B, C, P, P] in [0, 1]."""
        draws = uniform(samples, 2, seed=self.seed, stream=_POSITION_STREAM, epoch=epoch).tolist()
        size = self.patch_size
        cuts = []
        for index, (down, across) in zip(self.image_of(samples).tolist(), draws, strict=True):
            image = self.images[index]
            top = int(down * (image.shape[1] - size + 1))
            left = int(across * (image.shape[2] - size + 1))
            cuts.append(to_unit_range(image[:, top : top + size, left : left + size]))
        return torch.stack(cuts)
