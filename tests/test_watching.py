"""What is told of a training while it runs: its speed, the history, TensorBoard, the profile."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from cli_data import QUICK, make_surface
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_fixtures import make_trainer

from twostage import Progress
from twostage.cli import main
from twostage.errors import ConfigError
from twostage.history import read_history
from twostage.profiling import Profiler
from twostage.tensorboard import Board, picture
from twostage.trainer import StepReport
from twostage.watching import Speed, Watcher


class Details(Progress):
    def __init__(self) -> None:
        self.details: list[str] = []

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.details.append(detail)


def test_speed_is_that_of_the_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("twostage.watching.time.perf_counter", lambda: now)
    speed = Speed(16)
    assert speed.after_step() is None
    for step in range(200):
        now += 1.0 if step < 100 else 0.25
        found = speed.after_step()
        assert found is not None
        if step == 99:
            assert found == pytest.approx(16)
    assert found == pytest.approx(64)


def test_every_step_says_stage_loss_terms_sigma_and_speed() -> None:
    progress = Details()
    trainer = make_trainer()
    trainer.run(on_step=Watcher(trainer, progress).after_step)
    pattern = r"stage 2  loss \d\.\d{4}  ssim \d\.\d{4}  l1 \d\.\d{4}  sigma 2\.50  [\d,]+ patches/s"
    assert re.fullmatch(pattern, progress.details[-1])
    assert "patches/s" not in progress.details[0]


def test_tensorboard_gets_curves_and_pictures(tmp_path: Path) -> None:
    trainer = make_trainer()
    board = Board(trainer, tmp_path, every=2)
    losses: list[float] = []
    watcher = Watcher(trainer, Progress(), board=board)

    def on_step(report: StepReport) -> None:
        losses.append(report.loss)
        watcher.after_step(report)

    trainer.run(on_step=on_step)
    watcher.close()
    found = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    found.Reload()
    curves = set(found.Tags()["scalars"])
    assert {"loss", "sigma", "epoch", "terms/aw_ssim", "terms/ssim", "terms/l1", "patches_per_second"} <= curves
    points = {event.step: event.value for event in found.Scalars("loss")}
    assert points == pytest.approx({step: losses[step] for step in (0, 2, 4, 6, 7)})
    (name,) = found.Tags()["images"]
    assert [event.step for event in found.Images(name)] == [0, 2, 4, 6, 7]
    assert (found.Images(name)[0].height, found.Images(name)[0].width) == (2 * 64, 3 * 64)


def test_a_picture_shows_input_reconstruction_and_target_side_by_side() -> None:
    parts = [torch.full((3, 1, 4, 4), value) for value in (0.0, 0.5, 1.0)]
    parts[0][1] = 0.25
    found = picture(*parts)
    assert found.shape == (1, 12, 12)
    assert found.dtype == torch.uint8
    assert found[0, 0].tolist() == [0] * 4 + [128] * 4 + [255] * 4
    assert found[0, 5].tolist() == [64] * 4 + [128] * 4 + [255] * 4


def test_tensorboard_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'twostage\[tensorboard\]'"):
        Board(make_trainer(), tmp_path)


def test_a_missing_tensorboard_costs_no_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["train", str(tmp_path / "run"), f"--data.root={make_surface(tmp_path / 'stripes', train=10)}", *QUICK]
    assert main(flags) == 0
    before = sorted((tmp_path / "run").rglob("*"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main([*flags, "--overwrite", "--tensorboard"]) == 2
    assert "pip install 'twostage[tensorboard]'" in capsys.readouterr().err
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_training_that_stops_where_the_profile_begins_has_nothing_to_profile(tmp_path: Path) -> None:
    trainer = make_trainer()
    profiler = Profiler(trainer, tmp_path / "profile")

    def stop(_: StepReport) -> None:
        profiler.after_step()
        if trainer.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(on_step=stop)
    profiler.finish()
    assert not (tmp_path / "profile").exists()


def test_the_profile_accounts_for_the_whole_step(tmp_path: Path) -> None:
    """Short stages too: 4 steps each, of which one is profiled."""
    trainer = make_trainer()
    profiler = Profiler(trainer, tmp_path)
    watcher = Watcher(trainer, Progress(), profiler=profiler)
    trainer.run(on_step=watcher.after_step)
    watcher.close()
    assert len(list(tmp_path.iterdir())) == 4
    for number in (1, 2):
        page = (tmp_path / f"stage-{number}.txt").read_text()
        assert page.startswith(f"Stage {number}, steps {4 * number - 1} to {4 * number - 1} on cpu, 2 patches a step: ")
        whole = float(page.split(" ms a step")[0].rsplit(" ", 1)[1])
        rows = dict(re.findall(r"^(\w+) +([\d.-]+) +[\d.-]+%$", page, flags=re.MULTILINE))
        phases = {"data", "forward", "losses", "backward", "optimiser", "host"} | (
            {"defects"} if number == 2 else set()
        )
        assert set(rows) == phases
        assert sum(map(float, rows.values())) == pytest.approx(whole, abs=0.05)
        assert all(float(took) >= 0 for took in rows.values())
        assert float(rows["backward"]) > float(rows["optimiser"])
        assert "aten::" in page
        trace = json.loads((tmp_path / f"stage-{number}.json").read_text())
        assert {"forward", "backward"} <= {event.get("name") for event in trace["traceEvents"]}


def test_the_command_line_writes_all_of_it_into_the_run(tmp_path: Path) -> None:
    surface = make_surface(tmp_path / "stripes", train=10)
    run = tmp_path / "run"
    flags = (f"--data.root={surface}", *QUICK, "--tensorboard", "--profile", "--first-stage.epochs=2")
    assert main(["train", str(run), *flags]) == 0
    assert list((run / "tensorboard").glob("events*"))
    assert "Stage 1" in (run / "profile/stage-1.txt").read_text()
    rows = read_history(run / "history.jsonl")
    assert all(row["patches_per_second"] > 0 for row in rows[1:])
    assert "patches_per_second" not in (run / "report.html").read_text()
    assert main(["train", str(run), f"--data.root={surface}", *QUICK, "--overwrite"]) == 0
    assert not (run / "tensorboard").exists()
    assert not (run / "profile").exists()
