"""What a user of the detector waits for: a training step of either stage, and the prediction of one image."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import torch
from tolerances import tolerance
from torch import Tensor

from benchmarks.case import Absent, Case, Contender, Least, Role
from benchmarks.peers.similarity import plain_aw_ssim
from twostage import Config, Detector
from twostage.autoencoder import Autoencoder
from twostage.calibration import Calibration
from twostage.config import ComputeConfig, DefectConfig, LossConfig, ModelConfig, StageConfig
from twostage.data.patches import PatchStore
from twostage.defects import DefectSampler, SourcePool
from twostage.features import feature_pair, fit_gaussian
from twostage.fitting import Fitted
from twostage.losses import LossParts, sigma_at
from twostage.lpips import LPIPS
from twostage.lpips.weights import HEAD_SHAPES, TRUNK_SHAPES
from twostage.scoring import base_maps
from twostage.tiling import PATCHES_AT_ONCE, reconstruct
from twostage.trainer import StepReport, Trainer
from twostage_kernels import aw_ssim_loss

BATCH = {"cpu": 16, "cuda": 128}
CHANNELS, PATCH, IMAGE = 3, 128, 256
STEPS = 4
"""Of one run; the optimiser is made anew for each run."""
STAGES = {
    "stage 1 step": StageConfig(epochs=STEPS, loss=LossConfig("aw-ssim", sigma=(1.5, 1.5)), defective=False),
    "stage 2 step": StageConfig(epochs=STEPS, loss=LossConfig("aw-ssim+lpips", sigma=(1.5, 1.5)), defective=True),
}

PLAIN = ComputeConfig(precision="float32")
WAYS = {
    "twostage": ComputeConfig(),
    "twostage, float32": PLAIN,
    "twostage, float32, channels first": replace(PLAIN, channels_last=False),
    "twostage, float32, compiled": replace(PLAIN, compile=True),
    "twostage, bf16": replace(PLAIN, precision="bf16"),
    "twostage, bf16, compiled": replace(PLAIN, precision="bf16", compile=True),
    "twostage, CUDA graph": ComputeConfig(cuda_graph=True),
}
"""Settings of ``compute``."""


@cache
def lpips_of(device: str) -> LPIPS:
    """With random weights, which take as long as the published ones."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in {**TRUNK_SHAPES, **HEAD_SHAPES}.items():
        fan_in = max(shape[0], 1) if len(shape) == 1 else shape[1] * shape[2] * shape[3]
        weights[name] = torch.rand(shape, generator=generator).sub(0.0 if name in HEAD_SHAPES else 0.5) / fan_in**0.5
    return LPIPS(weights).to(device)


def _images(count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (CHANNELS, PATCH, PATCH)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(count)]


def new_model(device: str) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Autoencoder(CHANNELS, ModelConfig(patch_size=PATCH)).to(device)


def _trainer(task: str, device: str, seed: int, compute: ComputeConfig) -> Trainer:
    """One step an epoch: as many images as a batch has patches, each as large as one."""
    stage, batch = STAGES[task], BATCH[device]
    images = _images(batch, seed)
    defects = DefectSampler(DefectConfig(), SourcePool(images, None, 16), PATCH, seed)
    return Trainer(
        new_model(device),
        [stage],
        PatchStore(images, PATCH, seed),
        defects,
        lpips_of(device) if stage.loss.uses_lpips else None,
        batch_size=batch,
        names=[str(index) for index in range(batch)],
        fingerprint={},
        compute=compute,
    )


class Trainings:
    """The same training, its steps computed in one way or another; set up when it is first asked for."""

    def __init__(self, task: str, device: str, seed: int) -> None:
        self.of = cache(partial(_trainer, task, device, seed))


class FirstLoss(NamedTuple):
    value: float
    allowed: float
    """How far it may lie from the truth."""


def _train(trainings: Trainings, compute: ComputeConfig) -> FirstLoss:
    """All steps."""
    trainer = trainings.of(compute)
    reports: list[StepReport] = []
    trainer.step = 0
    trainer.run(on_step=reports.append)
    allowed = "bf16 loss" if trainer.bf16 else "same work"
    return FirstLoss(reports[0].loss, tolerance(allowed, torch.float32))


def _first_loss(task: str, trainings: Trainings) -> float:
    """In float64, by the reference and nothing of the trainer."""
    stage, trainer = STAGES[task], trainings.of(PLAIN)
    samples = trainer.store.samples_at(torch.arange(trainer.batch_size), 0)
    normal = trainer.store.patches(samples, 0)
    inputs = normal
    if stage.defective:
        inputs, _ = trainer.defects.paste(normal, trainer.defects.draw(samples, trainer.store.image_of(samples), 0))
    model = copy.deepcopy(trainer.model).double().cpu().train()
    with torch.no_grad():
        prediction, target = model(inputs.double()), normal.double()
        sigma = sigma_at(stage.loss, 0, trainer.steps_in_epoch)
        loss = float(aw_ssim_loss(prediction, target, sigma=sigma, backend="reference"))
        if stage.loss.uses_lpips:
            share = stage.loss.similarity_share
            lpips = copy.deepcopy(lpips_of(str(trainer.device))).double().cpu()
            loss = share * loss + (1 - share) * float(lpips(prediction, target))
    return loss


def _judge_loss(result: FirstLoss, truth: float, role: Role) -> float:
    return abs(result.value - truth) / result.allowed


def _with_plain_loss(trainings: Trainings) -> FirstLoss:
    """The same step, its AW-SSIM in plain torch."""
    trainer = trainings.of(PLAIN)
    ours = trainer.losses

    def plain(prediction: Tensor, target: Tensor, sigma: Tensor) -> LossParts:
        total = 1 - plain_aw_ssim(prediction, target)
        return LossParts(total, {"aw_ssim": total.detach()})

    trainer.losses = [plain]  # type: ignore[list-item]
    try:
        return _train(trainings, PLAIN)
    finally:
        trainer.losses = ours


def _trainers(task: str, device: str) -> Sequence[Contender | Absent]:
    ways = dict(WAYS)
    if device == "cpu":
        del ways["twostage, CUDA graph"]
    ours = [Contender(name, "ours", partial(_train, compute=compute)) for name, compute in ways.items()]
    if STAGES[task].loss.uses_lpips:
        return ours
    return [*ours, Contender("with plain torch's AW-SSIM", "peer", _with_plain_loss)]


class Request(NamedTuple):
    detector: Detector
    image: Tensor  # [C, H, W]


def _request(device: str, seed: int) -> Request:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(CHANNELS, IMAGE, IMAGE, generator=generator)
    model, lpips = new_model(device).eval(), lpips_of(device)
    pair = feature_pair(lpips, image.to(device), image.flip(2).to(device))
    calibration = Calibration("features", 0.0, {}, fit_gaussian([pair]), threshold=1.0, candidates=())
    return Request(Detector(Config(), Fitted(model, lpips, "rgb", calibration, 0)), image)


def _predict(request: Request) -> Tensor:
    return request.detector.predict(request.image).score_map


def _score_map(request: Request) -> Tensor:
    """In float64, on the CPU."""
    detector, image = request.detector, request.image.double()
    assert detector.lpips is not None
    model, lpips = copy.deepcopy(detector.model).double().cpu(), copy.deepcopy(detector.lpips).double().cpu()
    overlap = detector.config.scoring.overlap
    rebuilt = reconstruct(model, image, patch_size=PATCH, overlap=overlap, batch_size=PATCHES_AT_ONCE)
    features = detector.calibration.normal_features
    assert features is not None
    double = type(features)(
        *(tuple(part.double().cpu() for part in parts) for parts in (features.means, features.whitening))
    )
    return base_maps(image, rebuilt, lpips, double)["features"]


def _judge_map(result: Tensor, truth: Tensor, role: Role) -> float:
    error = (result.double() - truth).abs().max() / truth.abs().max()
    return float(error) / tolerance("predicted map", torch.float32)


def cases(device: str) -> list[Case]:
    group = frozenset({"end to end"})
    shape = (BATCH[device], CHANNELS, PATCH, PATCH)
    training = [
        Case(
            op="training",
            task=task,
            shape=shape,
            device=device,
            inputs=partial(Trainings, task, device),
            contenders=partial(_trainers, task, device),
            truth=partial(_first_loss, task),
            judge=_judge_loss,
            least=lambda _: Least(0, 0),
            groups=group,
            rotates=False,
            repeats=STEPS,
        )
        for task in STAGES
    ]
    prediction = Case(
        op="predict",
        task="one image",
        shape=(CHANNELS, IMAGE, IMAGE),
        device=device,
        inputs=partial(_request, device),
        contenders=lambda: [Contender("twostage", "ours", _predict)],
        truth=_score_map,
        judge=_judge_map,
        least=lambda _: Least(0, 0),
        groups=group,
        rotates=False,
    )
    return [*training, prediction]
