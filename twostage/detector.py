"""The detector: fit, predict, evaluate, save, load."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from twostage.autoencoder import Autoencoder
from twostage.calibration import Calibration
from twostage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, under_prefix, with_prefix
from twostage.config import Config
from twostage.configfile import config_from_dict, config_to_dict
from twostage.data import Sample, read_image, read_mask, resize_shorter_side
from twostage.data.ahead import in_order
from twostage.data.packing import to_unit_range
from twostage.devices import choose_device
from twostage.distributed import current_ranks, from_all
from twostage.errors import CheckpointError, ConfigError, DataError, OutputError
from twostage.evaluation import Evaluation, Evaluator
from twostage.fitting import Fitted, Resume, Watch, fit
from twostage.lpips import LPIPS, load_lpips_weights
from twostage.progress import Progress
from twostage.run_folder import RunFolder
from twostage.scoring import base_maps, image_score, resize_map
from twostage.tiling import PATCHES_AT_ONCE, reconstruct

IMAGES_AT_ONCE = 16
"""Images of one size that a GPU reconstructs together."""
PATCHES_AT_ONCE_ON_GPU = 512
_READERS = min(os.cpu_count() or 1, 8)

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Prediction:
    """What the detector says of one image. Maps have the size that the image was scored at."""

    score: float
    """Higher is more anomalous; comparable between images of one detector."""
    defective: bool
    """Whether the score is above the detector's threshold."""
    image: Tensor  # [C, H, W] in [0, 1]
    reconstruction: Tensor  # [C, H, W] in [0, 1]
    residual: Tensor  # [H, W]
    score_map: Tensor  # [H, W]


@dataclass(frozen=True)
class _TestImage:
    """A test image that was read."""

    sample: Sample
    scored: Tensor  # [C, H, W] in [0, 1], at the size it is scored at
    size: tuple[int, int]
    """Of the file."""
    mask: Tensor | None


def _of_one_shape(
    images: Iterable[_Item], most: int, shape_of: Callable[[_Item], Sequence[int] | None]
) -> Iterator[list[_Item]]:
    """Runs of images of one shape; what has none (None) stands alone."""
    group: list[_Item] = []
    for image in images:
        shape = shape_of(image)
        if group and (len(group) == most or shape is None or shape_of(group[0]) != shape):
            yield group
            group = []
        group.append(image)
    if group:
        yield group


class Detector:
    """A trained autoencoder with its calibration.

    ``Detector.fit(config)`` trains one; ``predict`` and ``evaluate`` use it; ``save`` and ``Detector.load`` keep it.
    """

    def __init__(self, config: Config, fitted: Fitted) -> None:
        self.config = config
        self.model = fitted.model.eval()
        self.lpips = fitted.lpips
        self.color = fitted.color
        self.calibration = fitted.calibration
        self.steps = fitted.steps

    @classmethod
    def fit(
        cls,
        config: Config,
        *,
        run: Path | None = None,
        resume: Resume = False,
        overwrite: bool = False,
        lpips: LPIPS | None = None,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> "Detector":
        """Check the data, train through both stages, choose score map and threshold on held-out normals.

        Processes that `torchrun` started share the work; each of them gets the same detector.

        Args:
            config: everything the result depends on.
            run: folder for the configuration, checkpoints and the history; None trains without.
            resume: continue the run in ``run`` from its newest intact checkpoint, or from the start if it has none;
                "auto" does so where ``run`` holds a run, and else starts one.
            overwrite: replace an earlier run in ``run``.
            lpips: the perceptual network, where the caller has it loaded already.
            progress: is told how far the work is.
            watch: what else is recorded of it in ``run``.

        Raises:
            DataError: the data is not usable; every problem is listed at once, before any training.
            WeightsError: the LPIPS weights are needed and not found.
            OutputError: ``run`` cannot be written, is being trained by another process, already holds a run, or with
                ``resume`` holds none; or ``resume`` or ``watch`` ask for it and it is None.
            CheckpointError: ``resume`` finds only damaged checkpoints, or one of another configuration.
            NonFiniteLossError: training diverged; the last checkpoint is intact.
            TrainingInterrupted: Ctrl-C; ``resume`` continues.
        """
        if run is None and resume:
            raise OutputError(f"resume is {resume!r} and run is None; accepted: the folder of the run to resume")
        if run is None and watch is not None and (watch.tensorboard or watch.profile):
            raise OutputError(f"watch is {watch} and run is None; accepted: a folder that these are written into")
        fitted = fit(
            config,
            run=None if run is None else RunFolder(run),
            resume=resume,
            overwrite=overwrite,
            lpips=lpips,
            progress=progress or Progress(),
            watch=watch or Watch(),
        )
        return cls(config, fitted)

    def predict(self, image: Tensor | Path) -> Prediction:
        """Score one image.

        Args:
            image: a file, or [C, H, W] uint8 or float in [0, 1] with the detector's channels; any H and W.

        Raises:
            DataError: the image cannot be read, has other channels or values, or is smaller than a patch after
                resizing.
        """
        if isinstance(image, Path):
            pixels, name = read_image(image, color=self.color, max_pixels=self.config.data.max_pixels), str(image)
        else:
            pixels, name = image, "image"
        (prediction,) = self._predict([self._scored_at(pixels, name)])
        return prediction

    def predict_files(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Prediction | DataError]]:
        """Score images in order, or say what is wrong with them, as :meth:`predict` would.

        Threads read the images that come next; a GPU scores images of one size together.
        """

        def read(path: Path) -> tuple[Path, Tensor | DataError]:
            try:
                image = read_image(path, color=self.color, max_pixels=self.config.data.max_pixels)
                return path, self._scored_at(image, str(path))
            except DataError as error:
                return path, error

        def shape_of(found: tuple[Path, Tensor | DataError]) -> Sequence[int] | None:
            return found[1].shape if isinstance(found[1], Tensor) else None

        for group in _of_one_shape(in_order(paths, read, threads=_READERS), self._images_at_once, shape_of):
            images = [image for _, image in group if isinstance(image, Tensor)]
            predictions = self._predict(images) if images else iter(())
            for path, image in group:
                yield path, image if isinstance(image, DataError) else next(predictions)

    @property
    def _images_at_once(self) -> int:
        """Together images are faster on a GPU; on a CPU the patches of one keep the cores busy."""
        return 1 if next(self.model.parameters()).device.type == "cpu" else IMAGES_AT_ONCE

    def _scored_at(self, image: Tensor, name: str) -> Tensor:
        """The image as it is scored, or what is wrong with it."""
        if image.ndim != 3 or image.shape[0] != self.model.channels or image.numel() == 0:
            raise DataError(f"{name} has shape {tuple(image.shape)}; accepted: [{self.model.channels}, H, W]")
        accepted = "accepted: uint8, or floating point from 0 to 1"
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise DataError(f"{name} is {image.dtype}; {accepted}")
        if image.is_floating_point() and not bool(((image >= 0) & (image <= 1)).all()):
            raise DataError(f"{name} holds values from {image.min():g} to {image.max():g}; {accepted}")
        image = to_unit_range(resize_shorter_side(image, self.config.data.image_size))
        patch = self.config.model.patch_size
        if min(image.shape[1:]) < patch:
            raise DataError(f"{name} is {image.shape[1]}x{image.shape[2]} pixels; accepted: at least {patch}x{patch}")
        return image

    def _predict(self, images: Sequence[Tensor]) -> Iterator[Prediction]:
        """Predictions for images of one size as :meth:`_scored_at` gives them."""
        device = next(self.model.parameters()).device
        given = torch.stack(list(images)).to(device, non_blocking=True)
        rebuilt = reconstruct(
            self.model,
            given,
            patch_size=self.config.model.patch_size,
            overlap=self.config.scoring.overlap,
            batch_size=PATCHES_AT_ONCE if device.type == "cpu" else PATCHES_AT_ONCE_ON_GPU,
        )
        lpips = self.lpips if self.calibration.needs_lpips else None
        for image, other, on_host in zip(given, rebuilt, images, strict=True):
            maps = base_maps(image, other, lpips, self.calibration.normal_features)
            score_map = self.calibration.score(maps)
            score = image_score(score_map, self.config.scoring.image_fraction)
            residual = maps["residual"].cpu()
            yield Prediction(score, score > self.calibration.threshold, on_host, other.cpu(), residual, score_map.cpu())

    def evaluate(
        self,
        samples: Sequence[Sample],
        *,
        on_prediction: Callable[[Sample, Prediction, Tensor | None], None] | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Metrics over test images, at the resolution of their files.

        Processes that work together (see ``twostage.distributed``) share the images; each gets the metrics of all, the
        same in every bit as those of one process.

        Args:
            samples: test images of any kinds, with masks where they are known.
            on_prediction: is called with every sample of this process, its prediction and its mask (bool, at the file's
                resolution).

        Raises:
            DataError: an image or a mask cannot be read or does not fit, as for :meth:`predict`.
        """
        progress = progress or Progress()
        evaluator = Evaluator()
        own: Sequence[Sample] = current_ranks().share(samples)
        done = 0
        tests = _of_one_shape(self._test_images(own), self._images_at_once, lambda test: test.scored.shape)
        for group in tests:
            for test, prediction in zip(group, self._predict([test.scored for test in group]), strict=True):
                sample = test.sample
                full = resize_map(prediction.score_map, test.size)
                evaluator.add(full, test.mask, prediction.score, sample.kind, name=f"{sample.kind}/{sample.path.name}")
                if on_prediction is not None:
                    on_prediction(sample, prediction, test.mask)
                done += 1
                progress.update("evaluating", done, len(own))
        return evaluator.result(from_all)

    def _test_images(self, samples: Sequence[Sample]) -> Iterator["_TestImage"]:
        limit = self.config.data.max_pixels

        def read(sample: Sample) -> _TestImage:
            image = read_image(sample.path, color=self.color, max_pixels=limit)
            mask = None if sample.mask is None else read_mask(sample.mask, max_pixels=limit)
            size = (image.shape[1], image.shape[2])
            return _TestImage(sample, self._scored_at(image, str(sample.path)), size, mask)

        return in_order(samples, read, threads=_READERS)

    def save(self, folder: Path) -> Path:
        """Write the detector to a folder (safetensors and JSON, atomically); returns the path for :meth:`load`.

        Raises:
            OutputError: the folder cannot be written.
        """
        calibration, statistics = self.calibration.to_state()
        tensors = {**with_prefix("model.", self.model.state_dict()), **statistics}
        metadata = {"config": config_to_dict(self.config), "color": self.color, "calibration": calibration}
        save_checkpoint(folder, Checkpoint(self.steps, tensors, metadata), keep=1)
        return folder

    @classmethod
    def load(cls, folder: Path, *, lpips_weights: Path | None = None, device: str = "auto") -> "Detector":
        """Read what :meth:`save` wrote.

        Args:
            lpips_weights: where the LPIPS weights are, if not where they were at training.

        Raises:
            CheckpointError: the folder holds no detector, a damaged one, or one of another version.
            WeightsError: the score map needs LPIPS weights and they are not found.
            ConfigError: there is no such device here.
        """
        saved = load_checkpoint(folder)
        try:
            config = config_from_dict(saved.metadata["config"])
            color = saved.metadata["color"]
            calibration = Calibration.from_state(saved.metadata["calibration"], saved.tensors)
        except KeyError as error:
            raise CheckpointError(f"{folder} holds a training checkpoint; accepted: a saved detector") from error
        except ConfigError as error:
            raise CheckpointError(
                f"{folder} was saved with a configuration this version does not know: {error}"
            ) from error
        target = choose_device(device)
        model = Autoencoder(1 if color == "gray" else 3, config.model)
        model.load_state_dict(under_prefix("model.", saved.tensors))
        lpips = None
        if calibration.needs_lpips:
            lpips = LPIPS(load_lpips_weights(lpips_weights or config.lpips_weights)).to(target)
        return cls(config, Fitted(model.to(target), lpips, color, calibration.to(target), saved.step))
