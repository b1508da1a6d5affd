"""The images of a training run: those that train, those held out, those that defects are cut from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostage.config import Config
from twostage.data import Sample, check_images, choose_color, find_samples, require_clean, split_validation
from twostage.data.cache import ImageCache
from twostage.data.homes import cache_folder, choose_home, said
from twostage.data.layout import scan
from twostage.data.listing import Lazy
from twostage.data.loading import load_images
from twostage.data.mapped import MappedImages, MappedPatches
from twostage.data.order import Lanes, evenly_spread
from twostage.data.packing import into_one_piece, moved
from twostage.data.patches import Patches, PatchStore, first_samples
from twostage.data.prepared import Prepared, Preparer
from twostage.data.samples import Finding
from twostage.data.shards import open_shards
from twostage.defects import DefectSampler, Pool, SampledPool, SourcePool
from twostage.defects.appearance import describe
from twostage.defects.pools import most_sources
from twostage.defects.sources import load_sources
from twostage.distributed import current_ranks, from_first
from twostage.errors import DataError
from twostage.progress import Progress

# Keeps the defects of synthetic validation apart from those of training.
_VALIDATION_SEED_OFFSET = 1_000_003
_MOST_LANES = 64

Color = Literal["gray", "rgb"]


@dataclass(frozen=True)
class TrainingImages:
    """Normal images where training finds them, those that train apart from those held out."""

    names: Sequence[str]
    train: Sequence[Tensor]
    """In memory, all on ``device``; or mapped from files, on the CPU."""
    validation: Sequence[Tensor]
    sources: Sequence[Tensor] | None
    color: Color
    device: torch.device
    features: npt.NDArray[np.float32] | None = None
    """What the training images look like, [N, 4 C], where that is known already."""
    images_in_shard: npt.NDArray[np.int64] | None = None
    """Where the images lie in shards."""

    @classmethod
    def load(cls, config: Config, progress: Progress, device: torch.device | None = None) -> "TrainingImages":
        """Check the data set, and bring its normal training images to the home that suits their number.

        Args:
            device: where patches will be wanted; the CPU if not given.

        Raises:
            DataError: the data is not usable; every problem is listed at once.
            OutputError: the cache cannot be written.
        """
        device = device or torch.device("cpu")
        if config.data.shards is not None:
            return _from_shards(config, progress, device)
        samples = scan(config.data)[0].train
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if choose_home(config.data, samples, device, processes) == "cache":
            return _from_cache(config, progress, device)
        return _into_memory(config, progress, device)

    def store(self, config: Config) -> Patches:
        size = config.model.patch_size
        if not isinstance(self.train, MappedImages):
            return PatchStore(self.train, size, config.seed)
        order = None
        if self.images_in_shard is not None:
            table = self.train.table
            first = first_samples(table["height"], table["width"], size)
            ends = first[np.cumsum(self.images_in_shard)]
            batch = min(config.batch_size, int(first[-1]))
            lanes = min(batch & -batch, _MOST_LANES)
            order = Lanes(np.diff(ends, prepend=0), lanes, config.seed)
        return MappedPatches(self.train, size, config.seed, self.device, order)

    def sampler(self, config: Config) -> DefectSampler:
        return DefectSampler(config.defects, self._pool(config), config.model.patch_size, config.seed)

    def validation_sampler(self, config: Config) -> DefectSampler:
        """One visible defect for every held-out image, cut from the training images."""
        sources = self.sources or [self.train[index] for index in self._chosen().tolist()]
        pool = SourcePool(self.validation, sources, config.defects.candidates)
        always = replace(config.defects, probability=1.0, max_defects=1)
        seed = config.seed + _VALIDATION_SEED_OFFSET
        return DefectSampler(always, pool, config.model.patch_size, seed)

    def _pool(self, config: Config) -> Pool:
        chosen = self._chosen()
        if len(chosen) == len(self.train):
            return SourcePool(list(self.train), self.sources, config.defects.candidates)
        features = self.features
        if features is None:
            features = torch.stack([describe(image) for image in self.train]).cpu().numpy()
        if self.sources is not None:
            return SampledPool(features, self.sources, None, config.defects.candidates)
        sources = [self.train[index] for index in chosen.tolist()]
        return SampledPool(features, sources, chosen, config.defects.candidates)

    def _chosen(self) -> npt.NDArray[np.int64]:
        """The training images that defects may be cut from: the same ones in every home."""
        held = _bytes_of(self.train)
        return evenly_spread(len(self.train), most_sources(held / len(self.train)))


def _into_memory(config: Config, progress: Progress, device: torch.device) -> TrainingImages:
    _report(_checked(config, progress), progress)
    train, held_out, color = _found(config)

    def loading(done: int, total: int) -> None:
        progress.update("loading images", done, total)

    images = into_one_piece(load_images([*train, *held_out], config.data, color, loading))
    images = moved(images, device)
    progress.note(
        said(
            "memory",
            len(train),
            _bytes_of(images[: len(train)]),
            f"of {device}; patches are cut from it without copies of images",
        )
    )
    sources = _sources(config, color, device, progress)
    return TrainingImages(_names(train), images[: len(train)], images[len(train) :], sources, color, device)


def _from_cache(config: Config, progress: Progress, device: torch.device) -> TrainingImages:
    try:
        train, held_out, color = _found(config)
    except DataError:
        # All that is wrong is worth more than the first of it.
        _report(_checked(config, progress), progress)
        raise
    folder = cache_folder(config.data, color)

    def caching(done: int, total: int) -> None:
        progress.update("caching images", done, total)

    cache = ImageCache(folder, Preparer(config.data, color, describe), note=progress.note, progress=caching)

    def sample_of(number: int) -> Sample:
        return train[number] if number < len(train) else held_out[number - len(train)]

    everything = Lazy(len(train) + len(held_out), sample_of)
    prepared, findings = cache.open(Lazy(len(everything), lambda number: everything[number].path))
    findings += _checked(config, progress, trained=prepared.digests if prepared else np.zeros(0, dtype=np.uint64))
    if prepared is not None:
        findings += _too_small(prepared.images, _names(everything), config.model.patch_size)
    _report(findings, progress)
    assert prepared is not None
    progress.note(said("a cache on the disk", len(train), prepared.part(0, len(train)).images.nbytes, str(folder)))
    train_part, held_out_part = prepared.part(0, len(train)), prepared.part(len(train), len(prepared.images))
    return _mapped(config, train_part, held_out_part, _names(train), color, device, progress)


def _from_shards(config: Config, progress: Progress, device: torch.device) -> TrainingImages:
    assert config.data.shards is not None
    shards = open_shards(config.data.shards, config.data)
    digests = np.concatenate((shards.train.digests, shards.validation.digests))
    findings = _checked(config, progress, trained=digests) if config.data.root or config.data.manifest else []
    findings += _too_small(shards.train.images, shards.names, config.model.patch_size)
    _report(findings, progress)
    count = len(shards.train.images)
    progress.note(said("shards", count, shards.train.images.nbytes, f"{config.data.shards}, read in order"))
    return _mapped(
        config, shards.train, shards.validation, shards.names, shards.color, device, progress, shards.images_in_shard
    )


def _mapped(
    config: Config,
    train: Prepared,
    held_out: Prepared,
    names: Sequence[str],
    color: Color,
    device: torch.device,
    progress: Progress,
    images_in_shard: npt.NDArray[np.int64] | None = None,
) -> TrainingImages:
    sources = _sources(config, color, torch.device("cpu"), progress)
    validation = [held_out.images[index] for index in range(len(held_out.images))]
    return TrainingImages(names, train.images, validation, sources, color, device, train.features, images_in_shard)


def _names(samples: Sequence[Sample]) -> Sequence[str]:
    return Lazy(len(samples), lambda number: str(samples[number].path))


def _bytes_of(images: Sequence[Tensor]) -> int:
    """As they are kept."""
    return images.nbytes if isinstance(images, MappedImages) else sum(image.nbytes for image in images)


def _found(config: Config) -> tuple[Sequence[Sample], Sequence[Sample], Color]:
    """Training images, those held out, and the colour format of all."""
    data = config.data
    samples = find_samples(data).train
    color = choose_color((sample.path for sample in samples), data.color, max_pixels=data.max_pixels)
    return *split_validation(samples, data.validation_fraction, config.seed, data.validation_limit), color


def _sources(config: Config, color: Color, device: torch.device, progress: Progress) -> list[Tensor] | None:
    if config.defects.sources is None:
        return None
    size = config.model.patch_size
    found = load_sources(config.defects.sources, config.data, color, smallest=size, note=progress.note)
    return moved(into_one_piece(found), device)


def _checked(config: Config, progress: Progress, trained: npt.NDArray[np.uint64] | None = None) -> list[Finding]:
    """What is wrong with the data; of several processes the first looks."""
    if not current_ranks().first:
        return []
    return check_images(
        config.data,
        patch_size=config.model.patch_size,
        progress=lambda done, total: progress.update("checking images", done, total),
        trained=trained,
    )


def _report(findings: Sequence[Finding], progress: Progress) -> None:
    """Note what is worth knowing, unless something is wrong: then every process ends, and the first one lists it."""
    wrong = any(finding.fatal for finding in findings)
    if from_first(wrong) and not current_ranks().first:
        raise DataError("the data is not usable; the first process lists what is wrong with it")
    require_clean(findings)
    for finding in findings:
        progress.note(str(finding))


def _too_small(images: MappedImages, names: Sequence[str], patch_size: int) -> list[Finding]:
    shorter = np.minimum(images.table["height"], images.table["width"])
    return [
        Finding(
            Path(names[index]),
            f"has {shorter[index]} pixels on the shorter side; accepted: at least a patch, {patch_size}",
            fatal=True,
        )
        for index in np.flatnonzero(shorter < patch_size).tolist()
    ]
