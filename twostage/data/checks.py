"""Look at every image before any training, and report everything at once."""

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from twostage.config import DataConfig
from twostage.data.ahead import in_order
from twostage.data.images import ImageInfo, probe_image, read_image, read_mask
from twostage.data.layout import scan
from twostage.data.listing import Lazy
from twostage.data.prepared import pixel_digest
from twostage.data.samples import Finding, ImageSet, Sample, finding_of, require_clean
from twostage.errors import DataError

__all__ = ["Finding", "check_images", "require_clean"]

_DIGEST_BYTES = 16
_NOT_TRAINED_ON = "accepted: test images that were not trained on"


@dataclass(slots=True)
class _Inspection:
    info: ImageInfo | None = None
    digest: bytes = bytes(_DIGEST_BYTES)
    findings: list[Finding] = field(default_factory=list)


class _Images:
    """What was found of many images, in tens of bytes for each.

    Args:
        images: the training images come first.
    """

    def __init__(self, images: ImageSet) -> None:
        train, test = images.train, images.test
        self.trained = len(train)
        count = len(train) + len(test)
        self.samples = Lazy(count, lambda number: train[number] if number < len(train) else test[number - len(train)])
        self.infos: dict[ImageInfo, int] = {}
        self._info_of = array("i")
        self._digests = bytearray()

    def add(self, found: _Inspection) -> int:
        """Add the next one; how many they are now."""
        number = -1 if found.info is None else self.infos.setdefault(found.info, len(self.infos))
        self._info_of.append(number)
        self._digests += found.digest
        return len(self._info_of)

    def path(self, number: int) -> Path:
        return self.samples[number].path

    @property
    def info_of(self) -> npt.NDArray[np.int32]:
        """The number of each one's info, -1 where there is none: [N]."""
        return np.frombuffer(self._info_of, dtype=np.int32)

    @property
    def read(self) -> npt.NDArray[np.int64]:
        """Numbers of those that could be read."""
        return np.flatnonzero(self.info_of >= 0)

    @property
    def digests(self) -> npt.NDArray[np.uint64]:
        """[N, 2]."""
        return np.frombuffer(self._digests, dtype="<u8").reshape(-1, 2)


def check_images(
    config: DataConfig,
    *,
    patch_size: int,
    progress: Callable[[int, int], None] | None = None,
    trained: npt.NDArray[np.uint64] | None = None,
) -> list[Finding]:
    """Decode every image and mask of a data set and list all that is wrong, and what is worth knowing.

    Fatal: whatever ``find_samples`` raises; files that cannot be read, are truncated, not of an accepted format, too
    large, animated, or hold NaN; masks of another size than their image; a test image whose pixels are those of a
    training image; images smaller than a patch after resizing; fewer than two training images (one trains, one
    validates). Notes: a mask that marks nothing or everything, copies within the training or the test images, mixed
    sizes, channels and bit depths.

    Args:
        config: what is looked at.
        patch_size: side of the training patches in pixels, after resizing.
        progress: called with the number of images done and in all, from this thread.
        trained: digests of the training images, where those were looked at already (see ``twostage.data.prepared``):
            only test images are looked at then.

    Raises:
        DataError: neither root nor manifest is given.
    """
    images, findings = scan(config)
    if trained is not None:
        images = replace(images, train=())
    found = _Images(images)
    for inspection in in_order(found.samples, lambda sample: _inspect(sample, config.max_pixels)):
        done = found.add(inspection)
        findings.extend(inspection.findings)
        if progress is not None:
            progress(done, len(found.samples))
    findings.extend(_too_few(config, images))
    findings.extend(_too_small(config, found, patch_size))
    findings.extend(_copies(found))
    if trained is not None:
        findings.extend(_trained_on(found, trained))
    findings.extend(_mixed(found, "sizes", lambda info: f"{info.width}x{info.height} pixels"))
    findings.extend(_mixed(found, "channels", lambda info: info.channels))
    findings.extend(_mixed(found, "bit depths", lambda info: f"{info.bits} bits"))
    return findings


def _inspect(sample: Sample, max_pixels: int) -> _Inspection:
    found = _Inspection()
    try:
        found.info = probe_image(sample.path, max_pixels=max_pixels)
        found.digest = pixel_digest(read_image(sample.path, color="gray", max_pixels=max_pixels))
    except DataError as error:
        found.info = None
        found.findings.append(finding_of(sample.path, error))
    if sample.mask is not None:
        try:
            mask = read_mask(sample.mask, max_pixels=max_pixels)
        except DataError as error:
            found.findings.append(finding_of(sample.mask, error))
        else:
            found.findings.extend(_about_mask(sample.mask, mask, sample.path, found.info))
    return found


def _about_mask(path: Path, mask: Tensor, image_path: Path, info: ImageInfo | None) -> list[Finding]:
    findings = []
    height, width = mask.shape
    if info is not None and (width, height) != (info.width, info.height):
        problem = f"is {width}x{height} pixels; accepted: {info.width}x{info.height}, the size of {image_path}"
        findings.append(Finding(path, problem, fatal=True))
    if not mask.any():
        findings.append(Finding(path, "marks no pixel as defective", fatal=False))
    elif mask.all():
        findings.append(Finding(path, "marks every pixel as defective", fatal=False))
    return findings


def _too_few(config: DataConfig, images: ImageSet) -> list[Finding]:
    if len(images.train) != 1:
        return []
    place = config.manifest or images.train[0].path.parent
    return [Finding(place, "holds 1 training image; accepted: at least 2 (one trains, one validates)", fatal=True)]


def _too_small(config: DataConfig, images: _Images, patch_size: int) -> Iterator[Finding]:
    if config.image_size is not None:
        if config.image_size < patch_size and images.samples:
            place = config.root or config.manifest
            assert place is not None
            problem = (
                f"images are scaled to data.image_size = {config.image_size} pixels on their shorter side, a patch has "
                f"{patch_size}; accepted: an image size of at least {patch_size}, or a smaller patch"
            )
            yield Finding(place, problem, fatal=True)
        return
    for info, number in images.infos.items():
        if min(info.width, info.height) < patch_size:
            problem = f"is {info.width}x{info.height} pixels, a patch {patch_size}x{patch_size}"
            accepted = f"accepted: at least {patch_size} on the shorter side, or data.image_size to scale to"
            for index in np.flatnonzero(images.info_of == number).tolist():
                yield Finding(images.path(index), f"{problem}; {accepted}", fatal=True)


def _copies(images: _Images) -> Iterator[Finding]:
    """Images of the same pixels, whatever their file format."""
    read, digests = images.read, images.digests
    # Sorted stably: the first of those with the same pixels leads its run.
    order = read[np.lexsort(digests[read].T)]
    repeats = np.zeros(len(order), dtype=bool)
    repeats[1:] = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    leaders = order[np.maximum.accumulate(np.where(repeats, 0, np.arange(len(order))))]
    for first, copy in sorted(zip(leaders[repeats].tolist(), order[repeats].tolist(), strict=True)):
        if first < images.trained <= copy:
            problem = f"is a test image with the pixels of the training image {images.path(first)}"
            yield Finding(images.path(copy), f"{problem}; {_NOT_TRAINED_ON}", fatal=True)
        else:
            yield Finding(images.path(copy), f"has the pixels of {images.path(first)}", fatal=False)


def _trained_on(images: _Images, trained: npt.NDArray[np.uint64]) -> Iterator[Finding]:
    """Test images with the pixels of a training image, by digests."""
    read = images.read
    for number in read[np.isin(images.digests[read, 0], trained)].tolist():
        problem = "is a test image with the pixels of a training image"
        yield Finding(images.path(number), f"{problem}; {_NOT_TRAINED_ON}", fatal=True)


def _mixed(images: _Images, what: str, value_of: Callable[[ImageInfo], str]) -> Iterator[Finding]:
    """Every file that differs from the majority; one note for all where there is no majority."""
    read = images.read
    owners = images.info_of[read]
    values = [value_of(info) for info in images.infos]
    counts: Counter[str] = Counter()
    for value, count in zip(values, np.bincount(owners, minlength=len(values)).tolist(), strict=True):
        counts[value] += count
    if len(counts) < 2:
        return
    [(common, count)] = counts.most_common(1)
    differing = [number for number, value in enumerate(values) if value != common]
    if 2 * count > len(read):
        for number in read[np.isin(owners, differing)].tolist():
            value = values[images.info_of[number]]
            yield Finding(images.path(number), f"mixed {what}: {value}, most images have {common}", fatal=False)
        return
    first = values[owners[0]]
    other = next(number for number in range(len(read)) if values[owners[number]] != first)
    shown = [f"{values[owners[number]]} ({images.path(int(read[number])).name})" for number in (0, other)]
    place = reduce(_common, (str(images.path(number)) for number in read.tolist()))
    yield Finding(Path(place), f"mixed {what}: {len(counts)} different ones, as {', '.join(shown)}", fatal=False)


def _common(one: str, other: str) -> str:
    return os.path.commonpath((one, other))
