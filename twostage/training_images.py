"""The images of a training run in memory: those that train, those held out, those that defects are cut from."""

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from twostage.config import Config
from twostage.data import check_images, choose_color, find_samples, require_clean, split_validation
from twostage.data.loading import load_images
from twostage.data.patches import PatchStore
from twostage.defects import DefectSampler, SourcePool
from twostage.defects.sources import into_one_piece, load_sources
from twostage.progress import Progress

# Keeps the defects of synthetic validation apart from those of training.
_VALIDATION_SEED_OFFSET = 1_000_003


@dataclass(frozen=True)
class TrainingImages:
    """Normal images in memory, those that train apart from those held out."""

    names: tuple[str, ...]
    train: list[Tensor]
    validation: list[Tensor]
    sources: list[Tensor] | None
    color: Literal["gray", "rgb"]

    @classmethod
    def load(cls, config: Config, progress: Progress) -> "TrainingImages":
        """Check the data set, then read its normal training images.

        Raises:
            DataError: the data is not usable; every problem is listed at once.
        """
        findings = check_images(
            config.data,
            patch_size=config.model.patch_size,
            progress=lambda done, total: progress.update("checking images", done, total),
        )
        require_clean(findings)
        for finding in findings:
            progress.note(str(finding))
        samples = find_samples(config.data).train
        color = choose_color([sample.path for sample in samples], config.data.color, max_pixels=config.data.max_pixels)
        train, held_out = split_validation(samples, config.data.validation_fraction, config.seed)
        sources = None
        if config.defects.sources is not None:
            found = load_sources(config.defects.sources, config.data, color, smallest=config.model.patch_size)
            sources = into_one_piece(found)

        def loading(done: int, total: int) -> None:
            progress.update("loading images", done, total)

        images = into_one_piece(load_images([*train, *held_out], config.data, color, loading))
        names = tuple(str(sample.path) for sample in train)
        return cls(names, images[: len(train)], images[len(train) :], sources, color)

    def store(self, config: Config) -> PatchStore:
        return PatchStore(self.train, config.model.patch_size, config.seed)

    def sampler(self, config: Config) -> DefectSampler:
        pool = SourcePool(self.train, self.sources, config.defects.candidates)
        return DefectSampler(config.defects, pool, config.model.patch_size, config.seed)

    def validation_sampler(self, config: Config) -> DefectSampler:
        """One visible defect for every held-out image, cut from the training images."""
        pool = SourcePool(self.validation, self.sources or self.train, config.defects.candidates)
        always = replace(config.defects, probability=1.0, max_defects=1)
        seed = config.seed + _VALIDATION_SEED_OFFSET
        return DefectSampler(always, pool, config.model.patch_size, seed)
