"""Look at every image before any training, and report everything at once."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from twostage.config import DataConfig
from twostage.data.ahead import in_order
from twostage.data.images import ImageInfo, probe_image, read_image, read_mask
from twostage.data.layout import scan
from twostage.data.prepared import pixel_digest
from twostage.data.samples import Finding, ImageSet, Sample, finding_of, require_clean
from twostage.errors import DataError

__all__ = ["Finding", "check_images", "require_clean"]


@dataclass(slots=True)
class _Inspection:
    sample: Sample
    info: ImageInfo | None = None
    digest: bytes = b""
    findings: list[Finding] = field(default_factory=list)


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
    count = len(images.train) + len(images.test)
    inspections: list[_Inspection] = []
    known_infos: dict[ImageInfo, ImageInfo] = {}
    for inspection in in_order(chain(images.train, images.test), lambda sample: _inspect(sample, config.max_pixels)):
        inspections.append(inspection)
        if inspection.info is not None:
            # Millions of images of one kind share one object.
            inspection.info = known_infos.setdefault(inspection.info, inspection.info)
        findings.extend(inspection.findings)
        if progress is not None:
            progress(len(inspections), count)
    findings.extend(_too_few(config, images))
    findings.extend(_too_small(config, inspections, patch_size))
    findings.extend(_copies(inspections, trained={sample.path for sample in images.train}))
    if trained is not None:
        findings.extend(_trained_on(inspections, trained))
    findings.extend(_mixed(inspections, "sizes", lambda info: f"{info.width}x{info.height} pixels"))
    findings.extend(_mixed(inspections, "channels", lambda info: info.channels))
    findings.extend(_mixed(inspections, "bit depths", lambda info: f"{info.bits} bits"))
    return findings


def _inspect(sample: Sample, max_pixels: int) -> _Inspection:
    found = _Inspection(sample)
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


def _too_small(config: DataConfig, inspections: Sequence[_Inspection], patch_size: int) -> Iterator[Finding]:
    if config.image_size is not None:
        if config.image_size < patch_size and inspections:
            place = config.root or config.manifest
            assert place is not None
            problem = (
                f"images are scaled to data.image_size = {config.image_size} pixels on their shorter side, a patch has "
                f"{patch_size}; accepted: an image size of at least {patch_size}, or a smaller patch"
            )
            yield Finding(place, problem, fatal=True)
        return
    for inspection in inspections:
        info = inspection.info
        if info is not None and min(info.width, info.height) < patch_size:
            problem = f"is {info.width}x{info.height} pixels, a patch {patch_size}x{patch_size}"
            accepted = f"accepted: at least {patch_size} on the shorter side, or data.image_size to scale to"
            yield Finding(inspection.sample.path, f"{problem}; {accepted}", fatal=True)


def _copies(inspections: Sequence[_Inspection], trained: set[Path]) -> Iterator[Finding]:
    """Images of the same pixels, whatever their file format."""
    same: dict[bytes, list[Path]] = defaultdict(list)
    for inspection in inspections:
        if inspection.info is not None:
            same[inspection.digest].append(inspection.sample.path)
    for first, *rest in same.values():
        for path in rest:
            if first in trained and path not in trained:
                problem = f"is a test image with the pixels of the training image {first}"
                yield Finding(path, f"{problem}; accepted: test images that were not trained on", fatal=True)
            else:
                yield Finding(path, f"has the pixels of {first}", fatal=False)


def _trained_on(inspections: Sequence[_Inspection], trained: npt.NDArray[np.uint64]) -> Iterator[Finding]:
    """Test images with the pixels of a training image, by digests."""
    digests = np.array([int.from_bytes(found.digest[:8], "little") for found in inspections], dtype=np.uint64)
    for inspection, known in zip(inspections, np.isin(digests, trained).tolist(), strict=True):
        if known and inspection.info is not None:
            problem = "is a test image with the pixels of a training image"
            yield Finding(
                inspection.sample.path, f"{problem}; accepted: test images that were not trained on", fatal=True
            )


def _mixed(inspections: Sequence[_Inspection], what: str, value_of: Callable[[ImageInfo], str]) -> Iterator[Finding]:
    """Every file that differs from the majority; one note for all where there is no majority."""
    values = [(found.sample.path, value_of(found.info)) for found in inspections if found.info is not None]
    counts = Counter(value for _, value in values)
    if len(counts) < 2:
        return
    [(common, count)] = counts.most_common(1)
    if 2 * count > len(values):
        for path, value in values:
            if value != common:
                yield Finding(path, f"mixed {what}: {value}, most images have {common}", fatal=False)
        return
    first = values[0]
    other = next(found for found in values if found[1] != first[1])
    place = Path(os.path.commonpath([path for path, _ in values]))
    examples = f"{first[1]} ({first[0].name}), {other[1]} ({other[0].name})"
    yield Finding(place, f"mixed {what}: {len(counts)} different ones, as {examples}", fatal=False)
