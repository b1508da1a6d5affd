"""twostage train: settings from file, presets and flags; resuming; refusals; Ctrl-C."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cli_data import QUICK, make_surface

from twostage import Detector
from twostage.checkpoint import load_checkpoint
from twostage.cli import main
from twostage.cli.parsing import parse
from twostage.cli.settings import Configured
from twostage.config import Config
from twostage.configfile import load_config
from twostage.run_folder import RunFolder


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_surface(tmp_path_factory.mktemp("data") / "stripes")


@pytest.fixture(scope="module")
def trained(surface: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    assert main(["train", str(run.path), f"--data.root={surface}", *QUICK]) == 0
    return run


def test_a_run_holds_detector_evaluation_and_report(trained: RunFolder) -> None:
    values = json.loads(trained.evaluation.read_text())
    assert set(values["versions"]) == {"twostage", "torch", "numpy", "Python", "platform", "device"}
    assert values["versions"]["torch"] == torch.__version__
    assert values["config"]["second_stage"]["epochs"] == 1
    assert values["timing"]["training_seconds"] > 0
    assert values["peak_memory"]["host_bytes"] > 50e6
    detector = Detector.load(trained.detector, device="cpu")
    assert values["scoring"]["threshold"] == detector.calibration.threshold
    assert {image["kind"] for image in values["metrics"]["images"]} == {"good", "spot"}
    page = trained.report.read_text()
    assert "spot" in page
    assert "data:image/" in page


def test_an_earlier_run_is_replaced_only_with_overwrite(
    trained: RunFolder, surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trained.evaluation.read_bytes()
    assert main(["train", str(trained.path), f"--data.root={surface}", *QUICK]) == 2
    message = capsys.readouterr().err
    assert "already holds a run" in message
    assert "--overwrite" in message
    assert trained.evaluation.read_bytes() == before
    run = RunFolder(tmp_path / "again")
    shutil.copytree(trained.path, run.path)
    assert main(["train", str(run.path), f"--data.root={surface}", *QUICK, "--seed=1", "--overwrite"]) == 0
    assert load_config(run.config).seed == 1


def test_a_restart_replaces_the_earlier_run_and_not_what_its_own_launch_began(
    surface: Path,
    trained: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    flags = ["train", str(tmp_path / "run"), f"--data.root={surface}", *QUICK, "--overwrite"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "second launch")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    for resumes in (False, True):
        assert main(flags) == 0
        assert ("resuming at step" in capsys.readouterr().err) == resumes


def test_a_finished_run_resumed_from_its_folder_alone_is_the_same_run(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(trained.path, run.path)
    before = load_checkpoint(run.detector).tensors
    run.report.unlink()
    assert main(["train", str(run.path), "--resume"]) == 0
    assert "resuming at step" in capsys.readouterr().err
    assert run.report.is_file()
    after = load_checkpoint(run.detector).tensors
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_without_test_images_there_is_a_detector_and_a_report_of_the_training(tmp_path: Path) -> None:
    surface = make_surface(tmp_path / "surface", good=0)
    run = RunFolder(tmp_path / "run")
    assert main(["train", str(run.path), f"--data.root={surface}", *QUICK]) == 0
    assert json.loads(run.evaluation.read_text())["metrics"] is None
    assert "No test images" in run.report.read_text()


def _settings(*arguments: object) -> Config:
    command = parse([*map(str, arguments)])
    assert isinstance(command, Configured)
    return command.settings


def test_flags_change_presets_and_presets_change_the_file(surface: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("batch_size = 2\nmodel.patch_size = 64\nfirst_stage.epochs = 4\nfirst_stage.defective = true\n")
    before = ["train", "run", f"--config={file}", "--batch-size=4", "--preset=ae-ssim", "--preset=wood"]
    config = _settings(*before, "--data.root=stripes")
    assert config.batch_size == 4, "the flag's"
    assert config.model.patch_size == 64, "the file's"
    assert config.first_stage.epochs == 4 + Config().second_stage.epochs, "the preset's sum"
    assert not config.first_stage.defective, "the preset's"
    assert config.first_stage.loss.name == "ssim", "the preset's"
    assert config.first_stage.loss.weights == (0.25, 0.25, 0.5), "the second preset's"
    assert config.data.root == Path.cwd() / "stripes", "a path that holds in every folder"
    assert _settings(*before, "--first-stage.epochs=7").first_stage.epochs == 7, "the flag's"


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("flag", ["defective", "no-defective"])
def test_both_forms_of_a_switch_work_whatever_the_file_says(in_file: bool, flag: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"[second_stage]\ndefective = {str(in_file).lower()}\n")
    config = _settings("train", "run", f"--config={file}", f"--second-stage.{flag}")
    assert config.second_stage.defective == (flag == "defective")
    assert _settings("train", "run", f"--config={file}").second_stage.defective == in_file


def test_a_setting_of_none_can_be_given(tmp_path: Path) -> None:
    assert _settings("train", "run", "--data.image-size=None").data.image_size is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.patch-size=65"], "model.patch_size is 65; accepted: a multiple of 16"),
        (["--second-stage.epochs=-1"], "epochs is -1; accepted: at least 0"),
        (["--first-stage.loss.sigma", "0", "2"], r"loss.sigma is \(0.0, 2.0\); accepted: .* above 0"),
        (["--first-stage.loss.weights", "0", "0", "0"], "loss.weights is .* not all 0"),
        (["--first-stage.loss.window-size=10"], "loss.window_size is 10; accepted: an odd integer"),
        (["--data.image-size=32"], "model.patch_size is 64; accepted: at most data.image_size, 32"),
        (["--device=tpu"], "device is 'tpu'; accepted"),
        (["--resume", "--overwrite"], "accepted: one of them"),
        (["--resume"], "holds no run"),
        (["--data.root=nowhere"], "nowhere"),
    ],
)
def test_bad_values_are_refused_with_one_message(
    flags: list[str], message: str, surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(run), f"--data.root={surface}", *QUICK, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("twostage: ") or "\ntwostage: " in error
    assert "Traceback" not in error
    assert re.search(message, error), error
    assert not run.exists()


def test_an_unknown_key_in_the_file_is_named_with_the_nearest_known_one(
    surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[second_stage]\nepoch = 3\n")
    assert main(["train", str(tmp_path / "run"), f"--data.root={surface}", f"--config={file}"]) == 2
    error = capsys.readouterr().err
    assert f"{file}: second_stage.epoch is no setting (did you mean second_stage.epochs?)" in error


def test_every_problem_in_the_data_is_listed_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surface = make_surface(tmp_path / "surface")
    (surface / "train/good/000.png").write_bytes(b"no image")
    (surface / "ground_truth/spot/001_mask.png").unlink()
    assert main(["train", str(tmp_path / "run"), f"--data.root={surface}", *QUICK]) == 2
    error = capsys.readouterr().err
    assert "000.png" in error
    assert "001" in error
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_cannot_be_made_is_named(
    surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A file in the way stops root too, whom permissions do not.
    (tmp_path / "file").write_text("")
    assert main(["train", str(tmp_path / "file/run"), f"--data.root={surface}", *QUICK]) == 2
    assert str(tmp_path / "file/run") in capsys.readouterr().err


def test_a_folder_with_other_files_is_not_used(
    surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("years of work")
    assert main(["train", str(tmp_path / "run"), f"--data.root={surface}", *QUICK, "--overwrite"]) == 2
    assert "holds files and no run" in capsys.readouterr().err
    assert (tmp_path / "run/thesis.txt").read_text() == "years of work"


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    surface = make_surface(tmp_path / "surface")
    run = RunFolder(tmp_path / "my run")
    command = [sys.executable, "-m", "twostage", "train", str(run.path), f"--data.root={surface}", *QUICK]
    process = subprocess.Popen(
        [*command, "--first-stage.epochs=400"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not run.history.is_file() or not run.history.read_text():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no step in two minutes"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert f"twostage train '{run.path}' --resume" in errors
    saved = max(run.checkpoints.iterdir())
    assert load_checkpoint(saved).step > 0
