"""A whole training from image files, and the same training as it is commonly written; the network alone beside them."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path

import torch
from lpips_oracles import textbook_lpips
from tolerances import tolerance
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.case import Absent, Case, Contender, Least, Role
from benchmarks.cases.steps import BATCH, CHANNELS, PATCH, lpips_of, new_model
from benchmarks.environment import installed_version
from benchmarks.peers.similarity import plain_aw_ssim
from benchmarks.peers.usual_way import Crops, UsualTraining
from twostage.config import DataConfig, DefectConfig, LossConfig, StageConfig
from twostage.data.loading import load_images
from twostage.data.packing import into_one_piece, moved
from twostage.data.patches import PatchStore
from twostage.data.samples import GOOD, Sample
from twostage.defects import DefectSampler, SourcePool
from twostage.losses import ReconstructionLoss
from twostage.trainer import Trainer
from twostage_kernels import aw_ssim_loss

IMAGE, PER_IMAGE, STEPS = 512, 16, 8
"""The paper's images and patches. An epoch has as many steps as these."""
SIGMA = 1.5
STAGES = {
    "stage 1": StageConfig(1, LossConfig("aw-ssim", sigma=(SIGMA, SIGMA)), defective=False),
    "stage 2": StageConfig(1, LossConfig("aw-ssim+lpips", sigma=(SIGMA, SIGMA)), defective=True),
}
_Loss = Callable[[Tensor, Tensor], Tensor]
_Result = Callable[[], float]
"""A contender's loss of one and the same batch, by its own means and with the weights that all start from."""


class Files:
    """Image files, and trainings on them that are set up once."""

    def __init__(self, stage: StageConfig, device: str, seed: int) -> None:
        from PIL import Image

        self.stage, self.device = stage, device
        self.folder = tempfile.TemporaryDirectory()
        generator = torch.Generator().manual_seed(seed)
        self.paths = []
        for number in range(BATCH[device] * STEPS // PER_IMAGE):
            coarse = torch.rand(1, CHANNELS, IMAGE // 8, IMAGE // 8, generator=generator)
            texture = F.interpolate(coarse, size=(IMAGE, IMAGE), mode="bicubic", align_corners=False)[0]
            noisy = texture.mul(200).add(20 * torch.rand(CHANNELS, IMAGE, IMAGE, generator=generator)).clamp(0, 255)
            self.paths.append(Path(self.folder.name) / f"{number:03}.png")
            Image.fromarray(noisy.byte().permute(1, 2, 0).numpy()).save(self.paths[-1])

    @cached_property
    def probe(self) -> Tensor:
        """A batch [B, C, P, P]."""
        samples = torch.arange(BATCH[self.device])
        return self.trainer.store.patches(samples, 0)

    @cached_property
    def trainer(self) -> Trainer:
        config = DataConfig(image_size=None)
        found = load_images([Sample(path, GOOD) for path in self.paths], config, "rgb")
        images = moved(into_one_piece(found), torch.device(self.device))
        return Trainer(
            new_model(self.device),
            [self.stage],
            PatchStore(images, PATCH, 0),
            DefectSampler(DefectConfig(), SourcePool(images, None, 16), PATCH, 0),
            lpips_of(self.device) if self.stage.loss.uses_lpips else None,
            batch_size=BATCH[self.device],
            names=[path.name for path in self.paths],
            fingerprint={},
        )

    def own_precision(self) -> torch.autocast:
        """That of twostage's convolutions."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.trainer.bf16)

    @cached_property
    def usual(self) -> UsualTraining:
        return self._usual(held=False)

    @cached_property
    def usual_held(self) -> UsualTraining:
        return self._usual(held=True)

    def _usual(self, *, held: bool) -> UsualTraining:
        model = new_model(self.device)
        model.lay_out(channels_last=False)
        crops = Crops(self.paths, BATCH[self.device] * STEPS, PATCH, defective=self.stage.defective, held=held)
        return UsualTraining(crops, BATCH[self.device], model, plain_loss(self.stage, self.device))

    @cached_property
    def bare(self) -> tuple[nn.Module, torch.optim.Adam]:
        model = new_model(self.device).train()
        return model, torch.optim.Adam(model.parameters(), lr=2e-4, fused=True)


def plain_loss(stage: StageConfig, device: str) -> _Loss:
    """AW-SSIM and LPIPS as they are commonly written."""
    if not stage.loss.uses_lpips:
        return lambda prediction, target: 1 - plain_aw_ssim(prediction, target)
    share = stage.loss.similarity_share
    weights = textbook_weights(device)

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        similarity = 1 - plain_aw_ssim(prediction, target)
        return share * similarity + (1 - share) * textbook_lpips(weights, prediction, target).mean()

    return loss


def textbook_weights(device: str) -> dict[str, Tensor]:
    """The weights of :func:`lpips_of` under their published names, in torch's own layout."""
    own = lpips_of(device)
    weights = {}
    for index, layer in enumerate((0, 3, 6, 8, 10)):
        weights[f"features.{layer}.weight"] = own.get_buffer(f"kernel{index}").contiguous()
        weights[f"features.{layer}.bias"] = own.get_buffer(f"bias{index}")
        weights[f"lin{index}.weight"] = own.get_buffer(f"head{index}")
    return weights


def _ours(files: Files) -> _Result:
    trainer = files.trainer
    trainer.step = 0
    trainer.run()
    loss = ReconstructionLoss(files.stage.loss, lpips_of(files.device))
    return lambda: _loss_at_start(
        files, lambda prediction, target: loss(prediction, target, torch.tensor(SIGMA, device=files.device)).total
    )


def _usually(files: Files) -> _Result:
    files.usual.train()
    return lambda: _loss_at_start(files, files.usual.loss)


def _usually_held(files: Files) -> _Result:
    files.usual_held.train()
    return lambda: _loss_at_start(files, files.usual_held.loss)


def _loss_at_start(files: Files, loss: _Loss) -> float:
    with torch.no_grad():
        return float(loss(new_model(files.device).train()(files.probe), files.probe))


def _network_alone(files: Files) -> None:
    """Forward, mean squared error, backward, Adam; on one batch again and again, in twostage's precision."""
    model, optimizer = files.bare
    for _ in range(STEPS):
        with files.own_precision():
            prediction = model(files.probe)
        loss = F.mse_loss(prediction, files.probe)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _network_and_trunk(files: Files) -> None:
    """The same with LPIPS's convolutions for both images, the gradient of their outputs a constant."""
    model, optimizer = files.bare
    lpips = lpips_of(files.device)
    for _ in range(STEPS):
        with files.own_precision():
            prediction = model(files.probe)
            with torch.no_grad():
                lpips.activations(files.probe)
            activations = lpips.activations(prediction)
        loss = F.mse_loss(prediction, files.probe)
        optimizer.zero_grad()
        torch.autograd.backward([loss, *activations], [None, *(torch.full_like(a, 1e-6) for a in activations)])
        optimizer.step()


def _defects_alone(files: Files) -> None:
    """Drawing and pasting the defects of as many batches."""
    trainer = files.trainer
    for step in range(STEPS):
        samples = torch.arange(trainer.batch_size) + step * trainer.batch_size
        drawn = trainer.defects.draw(samples, trainer.store.image_of(samples), 0)
        trainer.defects.paste(files.probe, drawn)


def _truth(files: Files) -> float:
    """In float64, by the reference."""
    model = new_model("cpu").double().train()
    target = files.probe.double().cpu()
    with torch.no_grad():
        prediction = model(target)
        loss = float(aw_ssim_loss(prediction, target, sigma=SIGMA, backend="reference"))
        if files.stage.loss.uses_lpips:
            share = files.stage.loss.similarity_share
            weights = {name: value.double().cpu() for name, value in textbook_weights(files.device).items()}
            loss = share * loss + (1 - share) * float(textbook_lpips(weights, prediction, target).mean())
    return loss


def _judge(result: _Result, truth: float, role: Role) -> float:
    return abs(result() - truth) / tolerance("same work", torch.float32)


def _contenders(stage: StageConfig) -> Iterable[Contender | Absent]:
    yield Contender("twostage", "ours", _ours)
    missing = [name for name in ("opencv-python-headless", "pillow") if installed_version(name) is None]
    for name, run in (("the usual way", _usually), ("the usual way, decoded once", _usually_held)):
        if missing:
            yield Absent(name, f"{', '.join(missing)} not installed")
        else:
            yield Contender(name, "peer", run, installed_version("torch"))
    yield Contender("network with MSE", "yardstick", _network_alone)
    if stage.loss.uses_lpips:
        yield Contender("network and LPIPS trunk", "yardstick", _network_and_trunk)
        yield Contender("defects alone", "yardstick", _defects_alone)


def cases(device: str) -> Sequence[Case]:
    return [
        Case(
            op="training from files",
            task=task,
            shape=(BATCH[device], CHANNELS, PATCH, PATCH),
            device=device,
            inputs=partial(Files, stage, device),
            contenders=lambda stage=stage: list(_contenders(stage)),  # type: ignore[misc]
            truth=_truth,
            judge=_judge,
            least=lambda _: Least(0, 0),
            groups=frozenset({"end to end"}),
            rotates=False,
            repeats=STEPS,
        )
        for task, stage in STAGES.items()
    ]
