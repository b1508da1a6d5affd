"""Training a detector: what it leaves, what stops it, resuming."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detector_fixtures import Recorder, Trained, assert_same_weights, flip_a_byte, image, make_config, make_root
from image_files import noise, write

from twostage import Detector, ScoringConfig
from twostage.checkpoint import load_checkpoint
from twostage.configfile import load_config
from twostage.errors import CheckpointError, ConfigError, DataError, NonFiniteLossError, OutputError, WeightsError
from twostage.history import read_history
from twostage.stopping import TrainingInterrupted

# ---------------------------------------------------------------- fit


def test_a_run_leaves_its_configuration_history_and_checkpoints(trained: Trained) -> None:
    detector, run = trained.detector, trained.run
    # 4 training images of 96x115 pixels, 4 patches each, 8 in a step: 2 steps in an epoch.
    assert detector.steps == 4
    assert load_config(run / "config.toml") == detector.config
    assert [(row["step"], row["stage"]) for row in read_history(run / "history.jsonl")] == [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 1),
    ]
    assert load_checkpoint(run / "checkpoints").step == 4


def test_progress_tells_every_part_of_the_work(trained: Trained) -> None:
    updates = trained.recorder.updates
    assert list(dict.fromkeys(task for task, _, _ in updates)) == [
        "checking images",
        "loading images",
        "training",
        "calibrating",
    ]
    for task, total in (("checking images", 11), ("loading images", 6), ("training", 4), ("calibrating", 2)):
        assert [update[1:] for update in updates if update[0] == task] == [
            (done, total) for done in range(1, total + 1)
        ]


def test_the_same_seed_gives_the_same_detector_and_another_does_not(spots: Path, detector: Detector) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = Detector.fit(make_config(spots))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(again, detector)
    assert again.calibration == detector.calibration
    other = Detector.fit(replace(make_config(spots), seed=1))
    assert not torch.equal(other.model.to_latent.weight, detector.model.to_latent.weight)


def test_colour_images_are_learnt_in_colour(tmp_path: Path) -> None:
    for index in range(4):
        write(tmp_path / f"train/good/{index}.png", noise(index, 64, 64, 3))
    config = make_config(tmp_path)
    config = replace(
        config, data=replace(config.data, image_size=64), second_stage=replace(config.second_stage, epochs=0)
    )
    detector = Detector.fit(config)
    assert (detector.color, detector.model.channels) == ("rgb", 3)
    assert detector.predict(image(64, 70, 3)).reconstruction.shape == (3, 64, 70)


def test_all_problems_of_the_data_are_listed_before_any_training(tmp_path: Path) -> None:
    make_root(tmp_path / "data")
    (tmp_path / "data/train/good/bad.png").write_bytes(b"no image")
    (tmp_path / "data/ground_truth/spot/1_mask.png").unlink()
    recorder = Recorder()
    with pytest.raises(DataError, match="2 problems") as raised:
        Detector.fit(make_config(tmp_path / "data"), run=tmp_path / "run", progress=recorder)
    assert "bad.png" in str(raised.value)
    assert "has no mask" in str(raised.value)
    assert {task for task, _, _ in recorder.updates} == {"checking images"}
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_is_not_replaced_by_one_that_cannot_train(tmp_path: Path, spots: Path, trained: Trained) -> None:
    Detector.fit(
        replace(make_config(spots), second_stage=replace(make_config(spots).second_stage, epochs=0)), run=tmp_path
    )
    with pytest.raises(DataError, match="no such folder"):
        Detector.fit(make_config(tmp_path / "missing"), run=tmp_path, overwrite=True)
    assert load_checkpoint(tmp_path / "checkpoints").step == 2
    Detector.fit(make_config(spots), run=tmp_path, overwrite=True)
    assert load_checkpoint(tmp_path / "checkpoints").step == 4
    assert len(read_history(tmp_path / "history.jsonl")) == 4


def test_one_training_image_cannot_be_its_own_source(tmp_path: Path) -> None:
    make_root(tmp_path, train=2)
    with pytest.raises(DataError, match=r"the pool of defect sources holds 1 image\(s\)"):
        Detector.fit(make_config(tmp_path))


def test_missing_lpips_weights_stop_it_at_once(spots: Path, tmp_path: Path) -> None:
    config = replace(make_config(spots), scoring=ScoringConfig(), lpips_weights=tmp_path / "missing")
    with pytest.raises(WeightsError, match="missing"):
        Detector.fit(config, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_here_stops_it_at_once(spots: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'cuda:99'"):
        Detector.fit(replace(make_config(spots), device="cuda:99"))


def test_a_run_is_not_replaced_unasked(trained: Trained) -> None:
    detector, run = trained.detector, trained.run
    recorder = Recorder()
    with pytest.raises(OutputError, match="already holds a run"):
        Detector.fit(detector.config, run=run, progress=recorder)
    assert recorder.updates == []


def test_a_diverging_training_stops_with_the_last_checkpoint_intact(spots: Path, tmp_path: Path) -> None:
    config = make_config(spots)
    config = replace(config, first_stage=replace(config.first_stage, epochs=3, learning_rate=1e37))
    with pytest.raises(NonFiniteLossError, match=r"at step 1, sigma .*train.good.\d\.png"):
        Detector.fit(config, run=tmp_path)
    assert load_checkpoint(tmp_path / "checkpoints").step == 1


# ---------------------------------------------------------------- resume


class Interrupting(Recorder):
    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        super().update(task, done, total, detail)
        if (task, done) == ("training", 3):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_run_resumes_to_the_same_detector(spots: Path, tmp_path: Path, detector: Detector) -> None:
    with pytest.raises(TrainingInterrupted, match="after step 3 of 4"):
        Detector.fit(make_config(spots), run=tmp_path, progress=Interrupting())
    # What does not change the result may change.
    config = replace(make_config(spots), checkpoint_every=7)
    recorder = Recorder()
    resumed = Detector.fit(config, run=tmp_path, resume=True, progress=recorder)
    assert "resuming at step 3 of 4" in recorder.notes
    assert_same_weights(resumed, detector)
    assert resumed.calibration == detector.calibration
    assert [row["step"] for row in read_history(tmp_path / "history.jsonl")] == [0, 1, 2, 3]
    assert load_config(tmp_path / "config.toml") == config


def test_resuming_names_the_setting_that_changed(spots: Path, trained: Trained) -> None:
    config = make_config(spots)
    changed = replace(config, second_stage=replace(config.second_stage, learning_rate=1e-3))
    with pytest.raises(CheckpointError, match=r"second_stage\.learning_rate was 0\.0002, is 0\.001\. Accepted"):
        Detector.fit(changed, run=trained.run, resume=True)
    assert load_config(trained.run / "config.toml") == config


def test_resuming_passes_over_a_damaged_checkpoint(spots: Path, tmp_path: Path, detector: Detector) -> None:
    Detector.fit(make_config(spots), run=tmp_path)
    flip_a_byte(tmp_path / "checkpoints/step-000000004/tensors.safetensors")
    recorder = Recorder()
    resumed = Detector.fit(make_config(spots), run=tmp_path, resume=True, progress=recorder)
    assert any("passed over a damaged checkpoint" in note for note in recorder.notes)
    assert_same_weights(resumed, detector)
    for step in (3, 4):
        flip_a_byte(tmp_path / f"checkpoints/step-00000000{step}/state.json")
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        Detector.fit(make_config(spots), run=tmp_path, resume=True)


def test_there_must_be_a_run_to_resume(spots: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no run"):
        Detector.fit(make_config(spots), run=tmp_path / "missing", resume=True)
    with pytest.raises(OutputError, match="resume is True and run is None"):
        Detector.fit(make_config(spots), resume=True)
