"""The schedule, the steps, and what stops them."""

import math
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim import Adam
from training_fixtures import PATCH, STAGES, assert_equal_bits, at_step, make_images, make_trainer, state_of

from twostage.checkpoint import latest_checkpoint
from twostage.config import LossConfig, StageConfig
from twostage.data.patches import PatchStore
from twostage.errors import ConfigError, NonFiniteLossError
from twostage.losses import ReconstructionLoss, sigma_at
from twostage.stopping import TrainingInterrupted
from twostage.trainer import StepReport, Trainer


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


# ---------------------------------------------------------------- the schedule


def test_moments_count_through_both_stages() -> None:
    trainer = make_trainer()
    assert (trainer.steps_in_epoch, trainer.total_steps) == (2, 8)
    moments = [trainer.moment_of(step) for step in range(8)]
    assert [moment.stage for moment in moments] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [moment.epoch for moment in moments] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [moment.step_in_epoch for moment in moments] == [0, 1] * 4
    assert [step for step, moment in enumerate(moments) if moment.starts_epoch] == [0, 2, 4, 6]
    assert [step for step, moment in enumerate(moments) if moment.starts_stage] == [0, 4]
    with pytest.raises(IndexError, match="step is 8; accepted: 0 to 7"):
        trainer.moment_of(8)


def test_a_stage_without_epochs_is_passed_over() -> None:
    trainer = make_trainer(stages=(replace(STAGES[0], epochs=0), STAGES[1]))
    assert trainer.total_steps == 4
    assert trainer.moment_of(0).stage == 1
    assert trainer.moment_of(0).starts_stage


def test_a_batch_is_never_larger_than_an_epoch() -> None:
    trainer = make_trainer(make_images(2))
    big = Trainer(
        trainer.model, STAGES, trainer.store, trainer.defects, None, batch_size=1000, names=[], fingerprint={}
    )
    assert (big.batch_size, big.steps_in_epoch) == (4, 1)


def test_every_step_reports_sigma_terms_and_loss() -> None:
    trainer = make_trainer()
    reports: list[StepReport] = []
    trainer.run(on_step=reports.append)
    assert [report.step for report in reports] == list(range(8))
    for report in reports:
        stage = STAGES[report.moment.stage]
        assert report.sigma == sigma_at(stage.loss, report.moment.step_in_epoch, 2)
        assert math.isfinite(report.loss)
    assert [report.sigma for report in reports] == [0.5, 2.5] * 4
    assert set(reports[0].terms) == {"aw_ssim"}
    assert reports[0].loss == pytest.approx(reports[0].terms["aw_ssim"])
    last = reports[-1]
    assert last.loss == pytest.approx(0.8 * last.terms["ssim"] + 0.2 * last.terms["l1"])


# ---------------------------------------------------------------- the steps


def by_hand(steps: int) -> dict[str, Tensor]:
    """The same training from its parts: an Adam for each stage, defects in the second."""
    trainer = make_trainer()
    model = trainer.model.train()
    for step in range(steps):
        stage_number, epoch, place = step // 4, step // 2, step % 2
        stage = STAGES[stage_number]
        if step % 4 == 0:
            optimizer = Adam(model.parameters(), lr=stage.learning_rate, fused=True)
        samples = trainer.store.samples_at(torch.arange(2 * place, 2 * place + 2), epoch)
        normal = trainer.store.patches(samples, epoch)
        inputs = normal
        if stage_number == 1:
            polygons = trainer.defects.draw(samples, trainer.store.image_of(samples), epoch)
            inputs, _ = trainer.defects.paste(normal, polygons)
        loss = ReconstructionLoss(stage.loss)(model(inputs), normal, torch.tensor([0.5, 2.5][place]))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    return dict(model.state_dict())


def test_training_is_adam_on_the_losses_with_a_fresh_one_for_each_stage() -> None:
    trainer = make_trainer()
    trainer.run()
    assert_equal_bits(dict(trainer.model.state_dict()), by_hand(8))
    assert state_of(trainer)["optimizer.0.step"] == 4  # those of the second stage alone


def test_the_same_start_gives_the_same_bits() -> None:
    first, second = make_trainer(), make_trainer()
    first.run()
    second.run()
    assert_equal_bits(state_of(second), state_of(first))


def test_the_target_of_a_defective_input_is_the_normal_patch() -> None:
    targets: list[Tensor] = []

    def recording(prediction: Tensor, target: Tensor) -> Tensor:
        targets.append(target)
        return (prediction - target).square().mean()

    stage = StageConfig(epochs=4, loss=LossConfig("lpips+ssim"), defective=True)
    trainer = make_trainer(stages=(stage,), lpips=recording)
    inputs: list[Tensor] = []
    trainer.model.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    trainer.run()
    places = torch.arange(trainer.batch_size)
    samples = [trainer.store.samples_at(step % 2 * trainer.batch_size + places, step // 2) for step in range(8)]
    normal = [trainer.store.patches(numbers, step // 2) for step, numbers in enumerate(samples)]
    assert all(torch.equal(target, patches) for target, patches in zip(targets, normal, strict=True))
    assert any(not torch.equal(given, target) for given, target in zip(inputs, targets, strict=True))


def test_training_lowers_the_loss() -> None:
    stage = StageConfig(epochs=15, loss=LossConfig("ssim+l1"), defective=False, learning_rate=2e-3)
    smooth = [torch.linspace(0, 255, PATCH).expand(1, PATCH, PATCH).byte().contiguous() for _ in range(2)]
    losses: list[float] = []
    trainer = make_trainer(smooth, stages=(stage,))
    trainer.run(on_step=lambda report: losses.append(report.loss))
    assert losses[-1] < 0.5 * losses[0]


def test_a_loss_with_lpips_needs_it() -> None:
    with pytest.raises(ConfigError, match="needs LPIPS"):
        make_trainer(stages=(replace(STAGES[0], loss=LossConfig("aw-ssim+lpips")),))


# ---------------------------------------------------------------- checkpoints


def steps_saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*"))


def test_checkpoints_come_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    found: list[list[str]] = []
    make_trainer().run(
        checkpoints=tmp_path, checkpoint_every=3, on_step=lambda report: found.append(steps_saved(tmp_path))
    )
    assert found[3] == ["step-000000003"]
    assert found[7] == ["step-000000003", "step-000000006"]
    assert steps_saved(tmp_path) == ["step-000000006", "step-000000008"]


def test_ctrl_c_finishes_the_step_and_saves_it(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    trainer = make_trainer()
    with pytest.raises(TrainingInterrupted, match="stopped after step 3 of 8"):
        trainer.run(checkpoints=tmp_path, on_step=at_step(3, interrupt))
    assert steps_saved(tmp_path) == ["step-000000003"]
    assert signal.getsignal(signal.SIGINT) is before
    trainer.run()  # nothing lingers
    assert trainer.step == 8


def test_a_second_ctrl_c_stops_at_once() -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt) as raised:
        make_trainer().run(on_step=at_step(1, twice))
    assert not isinstance(raised.value, TrainingInterrupted)


def test_training_runs_in_a_thread_too() -> None:
    trainer = make_trainer(stages=(replace(STAGES[0], epochs=1),))
    thread = threading.Thread(target=trainer.run)
    thread.start()
    thread.join()
    assert trainer.step == 2


# ---------------------------------------------------------------- numbers that are none


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_checkpoint_intact(tmp_path: Path) -> None:
    trainer = make_trainer()

    def spoil() -> None:
        images = [image.float() / 255 for image in make_images()]
        images[1][:] = float("nan")
        trainer.store = PatchStore(images, PATCH, 0)

    with pytest.raises(NonFiniteLossError) as raised:
        trainer.run(checkpoints=tmp_path, checkpoint_every=1, on_step=at_step(4, spoil))
    failed = trainer.step
    sigma = sigma_at(STAGES[1].loss, failed % 2, 2)
    message = str(raised.value)
    assert f"the loss is nan (ssim nan, l1 nan) at step {failed}, sigma {sigma:g}; the batch came from " in message
    assert "image-1.png" in message
    latest = latest_checkpoint(tmp_path)
    assert latest.damaged == ()
    assert latest.checkpoint.step == failed
    resumed = make_trainer()
    resumed.resume(tmp_path)
    weights = dict(trainer.model.named_parameters())
    assert_equal_bits(dict(resumed.model.named_parameters()), weights)
    resumed.run()
    assert all(bool(value.isfinite().all()) for value in state_of(resumed).values())


def test_only_the_samples_of_the_batch_are_named() -> None:
    images = [image.float() / 255 for image in make_images(8)]
    images[5][:] = float("nan")
    trainer = make_trainer(images)
    with pytest.raises(NonFiniteLossError) as raised:
        trainer.run()
    named = {index for index in range(8) if f"image-{index}.png" in str(raised.value)}
    moment = trainer.moment_of(trainer.step)
    places = moment.step_in_epoch * trainer.batch_size + torch.arange(trainer.batch_size)
    samples = trainer.store.samples_at(places, moment.epoch)
    assert named == set(trainer.store.image_of(samples).tolist())
    assert 5 in named
    assert len(named) <= 2


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    trainer = make_trainer()

    def spoil() -> None:
        with torch.no_grad():
            trainer.model.to_latent.weight[0, 0, 0, 0] = float("inf")

    with pytest.raises(NonFiniteLossError, match=r"1 tensors are not finite after step 2, .*model\.to_latent\.weight"):
        trainer.run(checkpoints=tmp_path, checkpoint_every=1, on_step=at_step(3, spoil))
    assert latest_checkpoint(tmp_path).checkpoint.step == 2
