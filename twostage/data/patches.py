"""Training patches: cut at random places that depend on (seed, epoch, sample) alone, wherever the images are kept."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostage.counter_random import uniform
from twostage.data.order import Order, Shuffled
from twostage.data.packing import pack, to_unit_range

_POSITION_STREAM = 2


class Patches(ABC):
    """What a training asks for: which samples come when, and their patches.

    An epoch holds as many samples as it takes to tile every image once: ceil(H/P) * ceil(W/P) of each.

    Args:
        heights, widths: of the images in pixels, at least ``patch_size`` each.
        patch_size: side of the square patches in pixels.
        seed: of the order and the positions.
        order: of the samples in an epoch; all of them shuffled if not given.
    """

    def __init__(
        self,
        heights: npt.NDArray[np.int64],
        widths: npt.NDArray[np.int64],
        patch_size: int,
        seed: int,
        order: Order | None = None,
    ) -> None:
        self.patch_size = patch_size
        self.seed = seed
        self._heights, self._widths = heights, widths
        self._first_sample = first_samples(heights, widths, patch_size)
        self._order = order or Shuffled(self.patches_per_epoch, seed)

    @property
    def patches_per_epoch(self) -> int:
        return int(self._first_sample[-1])

    def samples_at(self, places: Tensor, epoch: int) -> Tensor:
        """The numbers of the samples at the given places of an epoch: int64 [B] -> int64 [B]."""
        return torch.from_numpy(self._order.samples_at(places.numpy(), epoch))

    def image_of(self, samples: Tensor) -> Tensor:
        """The index of the image that each sample is cut from: int64 [B]."""
        return torch.from_numpy(np.asarray(np.searchsorted(self._first_sample, samples.numpy(), side="right") - 1))

    def prepare(self, samples: Tensor, epoch: int) -> None:  # noqa: B027
        """Says that these patches will be asked for soon; where images are on a disk, they are read meanwhile."""

    @abstractmethod
    def patches(self, samples: Tensor, epoch: int) -> Tensor:
        """The patches of the given sample numbers: float32 [B, C, P, P] in [0, 1], on the device of the images."""

    def places(self, samples: Tensor, epoch: int) -> list[tuple[int, int, int]]:
        """Where each sample is cut: image, top and left in pixels."""
        draws = uniform(samples, 2, seed=self.seed, stream=_POSITION_STREAM, epoch=epoch).double().numpy()
        images = self.image_of(samples).numpy()
        free = np.stack((self._heights[images], self._widths[images]), axis=1) - self.patch_size + 1
        corners = (draws * free).astype(np.int64)
        return [(image, top, left) for image, (top, left) in zip(images.tolist(), corners.tolist(), strict=True)]


class PatchStore(Patches):
    """Images in the memory of the host or of a device, and their patches; no image is copied.

    Args:
        images: [C, H, W] each, uint8 or float32 in [0, 1], sides of at least ``patch_size``, all on one device.
        patch_size: side of the square patches in pixels.
        seed: of the order and the positions.
    """

    def __init__(self, images: Sequence[Tensor], patch_size: int, seed: int, order: Order | None = None) -> None:
        sizes = np.array([image.shape[1:] for image in images], dtype=np.int64)
        super().__init__(sizes[:, 0], sizes[:, 1], patch_size, seed, order)
        self.images = tuple(images)
        self._bytes = all(image.dtype == torch.uint8 for image in self.images)
        # On a CPU one slice after another is two to three times as fast as a gather.
        self._packed = None if self.images[0].device.type == "cpu" else pack(self.images)

    def patches(self, samples: Tensor, epoch: int) -> Tensor:
        places = self.places(samples, epoch)
        if self._packed is not None:
            return gather_patches(*self._packed, places, self.images[0].shape[0], self.patch_size)
        size = self.patch_size
        cuts = [self.images[image][:, top : top + size, left : left + size] for image, top, left in places]
        return to_unit_range(torch.stack(cuts if self._bytes else [to_unit_range(cut) for cut in cuts]))


def first_samples(
    heights: npt.NDArray[np.int64], widths: npt.NDArray[np.int64], patch_size: int
) -> npt.NDArray[np.int64]:
    """The number of the first sample of each image, and behind them the number of all samples: int64 [images + 1]."""
    ends = np.empty(len(heights) + 1, dtype=np.int64)
    ends[0] = 0
    np.cumsum(-(-heights // patch_size) * -(-widths // patch_size), out=ends[1:])
    return ends


def gather_patches(
    values: Tensor, layout: Tensor, places: Sequence[tuple[int, int, int]], channels: int, size: int
) -> Tensor:
    """Patches of packed images in one gather on their device.

    Args:
        values, layout: as :func:`twostage.data.packing.pack` gives them; ``layout`` on the CPU.
        places: image, top and left of each patch.

    Returns:
        float32 [B, C, size, size] in [0, 1].
    """
    image, top, left = torch.tensor(places, dtype=torch.int64).unbind(dim=1)
    offset, height, width = layout[image].unbind(dim=1)
    # A few numbers for each patch cross to the device; pinned, nobody waits for them.
    numbers = torch.stack((offset + top * width + left, height * width, width), dim=1)
    numbers = numbers.pin_memory() if values.is_cuda else numbers
    start, plane, stride = numbers.to(values.device, non_blocking=True).view(-1, 3, 1, 1).unbind(dim=1)
    channel = torch.arange(channels, device=values.device).unsqueeze(1)
    row = torch.arange(size, device=values.device)
    # Every run of ``size`` values is a row of this view, so that the index needs a number for each row only.
    runs = values.unfold(0, size, 1)
    return to_unit_range(runs[start + channel * plane + row * stride])
