"""Training from a configuration to a calibrated model: data, stages, calibration."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twostage.autoencoder import Autoencoder
from twostage.calibration import Calibration, calibrate
from twostage.config import Config
from twostage.configfile import described
from twostage.devices import choose_device
from twostage.distributed import current_ranks, from_first, joined, wait_for_all
from twostage.history import History
from twostage.lpips import LPIPS, load_lpips_weights
from twostage.profiling import Profiler
from twostage.progress import Progress
from twostage.run_folder import RunFolder
from twostage.tensorboard import Board, summary_writer
from twostage.tiling import PATCHES_AT_ONCE, reconstruct
from twostage.trainer import Trainer
from twostage.training_images import TrainingImages
from twostage.watching import Watcher

# What may change between the parts of a resumed run.
_NOT_IN_FINGERPRINT = (
    *("checkpoint_every", "compute.log_every", "device", "lpips_weights", "scoring"),
    *("data.home", "data.cache"),
)

Resume = bool | Literal["auto"]


@dataclass(frozen=True)
class Watch:
    """How a training is watched, beside its progress and the history."""

    tensorboard: bool = False
    """Write scalars and reconstructions for TensorBoard, into ``tensorboard`` of the run."""
    profile: bool = False
    """Profile a few steps of every stage: traces and a summary, in ``profile`` of the run."""


@dataclass(frozen=True)
class Fitted:
    """What training yields: everything a detector is made of but its configuration."""

    model: Autoencoder
    lpips: LPIPS | None
    """For the score map; None where no candidate map needs it."""
    color: Literal["gray", "rgb"]
    calibration: Calibration
    steps: int
    """Optimiser steps over all stages."""


def fit(
    config: Config,
    *,
    run: RunFolder | None,
    resume: Resume,
    overwrite: bool,
    lpips: LPIPS | None,
    progress: Progress,
    watch: Watch,
) -> Fitted:
    """See :meth:`twostage.Detector.fit`."""
    device = choose_device(config.device)
    with joined(device) as ranks:
        if not ranks.first:
            progress = Progress()
        return _fit(config, run, resume, overwrite, lpips, progress, watch, device)


def _fit(
    config: Config,
    run: RunFolder | None,
    resume: Resume,
    overwrite: bool,
    lpips: LPIPS | None,
    progress: Progress,
    watch: Watch,
    device: torch.device,
) -> Fitted:
    ranks = current_ranks()
    if resume == "auto":
        resume = from_first(run is not None and run.config.is_file())
    if run is not None and resume:
        run.require_run()
    if run is not None and not resume and ranks.first:
        run.require_usable(overwrite=overwrite)
    if watch.tensorboard and ranks.first:
        summary_writer()
    if lpips is None and config.uses_lpips:
        lpips = LPIPS(load_lpips_weights(config.lpips_weights))
    lpips = lpips.to(device) if lpips is not None and config.uses_lpips else None

    images = TrainingImages.load(config, progress, device)
    wait_for_all()

    trainer = _trainer(config, images, lpips, device)
    if trainer.bf16:
        progress.note("training with convolutions in bfloat16; --compute.precision float32 trains without")
    with run.alone() if run is not None and ranks.first else nullcontext():
        if run is not None and not resume and ranks.first:
            # Not before the data has proved usable: an earlier run is replaced by one that can train.
            run.open_new(config, overwrite=overwrite)
        if run is not None and resume:
            for message in trainer.resume(run.checkpoints):
                progress.note(f"passed over a damaged checkpoint: {message}")
            if ranks.first:
                run.record(config)
            progress.note(f"resuming at step {trainer.step} of {trainer.total_steps}")
        watcher = _watcher(config, trainer, run, progress, watch)
        try:
            trainer.run(
                checkpoints=None if run is None else run.checkpoints,
                checkpoint_every=config.checkpoint_every,
                on_step=watcher.after_step,
            )
        finally:
            watcher.close()
    scoring_lpips = lpips if config.scoring.lpips else None
    model = trainer.model.eval()
    calibration = _calibrated(config, images, model, scoring_lpips, device, progress)
    return Fitted(model, scoring_lpips, images.color, calibration, trainer.step)


def _calibrated(
    config: Config,
    images: TrainingImages,
    model: Autoencoder,
    lpips: LPIPS | None,
    device: torch.device,
    progress: Progress,
) -> Calibration:
    def rebuild(image: Tensor) -> Tensor:
        overlap = config.scoring.overlap
        return reconstruct(
            model, image.to(device), patch_size=model.patch_size, overlap=overlap, batch_size=PATCHES_AT_ONCE
        )

    return calibrate(
        rebuild,
        lpips,
        images.train,
        images.validation,
        lambda: images.validation_sampler(config),
        config.scoring,
        progress=lambda done, total: progress.update("calibrating", done, total),
    )


def _trainer(config: Config, images: TrainingImages, lpips: LPIPS | None, device: torch.device) -> Trainer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Autoencoder(1 if images.color == "gray" else 3, config.model)
    fingerprint = described(config, _NOT_IN_FINGERPRINT)
    return Trainer(
        model.to(device),
        config.stages,
        images.store(config),
        images.sampler(config),
        lpips,
        batch_size=config.batch_size,
        names=images.names,
        fingerprint={**fingerprint, "color": images.color, "training images": len(images.train)},
        compute=config.compute,
    )


def _watcher(config: Config, trainer: Trainer, run: RunFolder | None, progress: Progress, watch: Watch) -> Watcher:
    """With several processes the first one alone writes."""
    if run is None or not trainer.ranks.first:
        return Watcher(trainer, progress)
    return Watcher(
        trainer,
        progress,
        History(run.history, trainer.total_steps, config.checkpoint_every, trainer.step),
        Board(trainer, run.tensorboard) if watch.tensorboard else None,
        Profiler(trainer, run.profile) if watch.profile else None,
    )
