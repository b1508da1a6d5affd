"""A detector on the disk: it comes back as it was, or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detector_fixtures import Trained, assert_same_prediction, flip_a_byte, image, make_config
from lpips_oracles import random_weights

from twostage import Detector, ScoringConfig
from twostage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from twostage.errors import CheckpointError, ConfigError, OutputError, WeightsError
from twostage.lpips import LPIPS

# ---------------------------------------------------------------- save and load


@pytest.fixture
def saved(detector: Detector, tmp_path: Path) -> Path:
    return detector.save(tmp_path / "detector")


def test_a_loaded_detector_says_the_same(detector: Detector, saved: Path) -> None:
    loaded = Detector.load(saved, device="cpu")
    assert loaded.config == detector.config
    assert loaded.calibration == detector.calibration
    assert (loaded.color, loaded.steps) == (detector.color, detector.steps)
    for size in ((96, 96), (150, 111)):
        assert_same_prediction(loaded.predict(image(*size)), detector.predict(image(*size)))


def test_saving_again_replaces(detector: Detector, saved: Path) -> None:
    assert detector.save(saved) == saved
    assert len(list(saved.glob("step-*"))) == 1
    Detector.load(saved, device="cpu")


def test_a_detector_with_lpips_maps_says_the_same(spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights()
    config = replace(make_config(spots), scoring=ScoringConfig(map="features", smoothing=0.0))
    config = replace(config, second_stage=replace(config.second_stage, epochs=0))
    detector = Detector.fit(config, lpips=LPIPS(weights))
    assert detector.calibration.needs_lpips
    accepted = detector.predict(image())
    assert not torch.equal(accepted.score_map, accepted.residual)
    monkeypatch.setattr("twostage.detector.load_lpips_weights", lambda location: weights)
    assert_same_prediction(Detector.load(detector.save(tmp_path), device="cpu").predict(image()), accepted)
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="missing"):
        Detector.load(tmp_path, lpips_weights=tmp_path / "missing", device="cpu")


def test_a_detector_cannot_be_saved_into_a_file(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file"):
        detector.save(tmp_path / "file")


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_one_flipped_byte_is_noticed(saved: Path, name: str) -> None:
    (folder,) = saved.glob("step-*")
    flip_a_byte(folder / name)
    with pytest.raises(CheckpointError, match=name):
        Detector.load(saved)


def test_another_version_is_refused(saved: Path) -> None:
    (state,) = saved.glob("step-*/state.json")
    values = json.loads(state.read_text())
    state.write_text(json.dumps({**values, "format_version": 99}))
    with pytest.raises(CheckpointError, match="version 99; accepted: 1"):
        Detector.load(saved)


def test_a_folder_without_a_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing does not exist"):
        Detector.load(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        Detector.load(tmp_path)


def test_a_training_checkpoint_is_no_detector(trained: Trained) -> None:
    with pytest.raises(CheckpointError, match="holds a training checkpoint; accepted: a saved detector"):
        Detector.load(trained.run / "checkpoints")


def test_a_configuration_of_another_version_is_refused(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    checkpoint.metadata["config"]["model"]["attention"] = True
    save_checkpoint(saved, Checkpoint(checkpoint.step, checkpoint.tensors, checkpoint.metadata))
    with pytest.raises(CheckpointError, match=r"does not know: model\.attention is no setting"):
        Detector.load(saved)


def test_a_detector_is_loaded_only_to_a_device_that_is_here(saved: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'cuda:99'"):
        Detector.load(saved, device="cuda:99")
