"""twostage ablate and reproduce, and the tables they print."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from cli_data import QUICK, make_surface

from twostage.cli import main, trials
from twostage.cli.reproduce import PAPER_AE_SSIM, PAPER_OURS, reproduction_table
from twostage.comparison import Results, Row, Trial, mean_and_spread, trials_of
from twostage.config import Config
from twostage.errors import ConfigError, OutputError
from twostage.presets import CATEGORIES
from twostage.progress import Progress

METHODS = ["--methods", "aw-ssim", "two-stage"]


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_surface(tmp_path_factory.mktemp("data") / "stripes")


def _ablate(out: Path, surface: Path, *flags: str) -> int:
    return main(["ablate", str(out), f"--data.root={surface}", *QUICK, *METHODS, "--seeds=1", *flags])


def _rows(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def _row(data: str = "x", method: str = "two-stage", seed: int = 0, pixel_auroc: float | None = 0.5) -> Row:
    return Row(data, method, seed, pixel_auroc, 0.5, None, 1.0, "f")


def test_ablate_continues_where_it_was_stopped(
    surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    ran: list[str] = []

    def run(trial: Trial, folder: Path, **rest: object) -> Row:
        if trial.method == "two-stage" and ran == ["aw-ssim"]:
            ran.append("stopped")
            raise KeyboardInterrupt
        ran.append(trial.method)
        return replace(_row(trial.data, trial.method, pixel_auroc=0.875), fingerprint=trial.fingerprint)

    with mock.patch.object(trials, "run_trial", run):
        assert _ablate(out, surface) == 130
        assert "the same command continues" in capsys.readouterr().err
        assert [row["method"] for row in _rows(out)] == ["aw-ssim"]
        assert _ablate(out, surface) == 0
        assert ran == ["aw-ssim", "stopped", "two-stage"], "what was finished is not run again"
        captured = capsys.readouterr()
        assert "1 of 2 runs are finished already" in captured.err
        heading = captured.out.splitlines()[0]
        assert heading == "| stripes | aw-ssim | two-stage |"
        assert "| pixel AuROC | 87.50 | 87.50 |" in captured.out
        assert (out / "table.md").read_text() in captured.out
        assert _ablate(out, surface, "--overwrite") == 0
        assert ran[3:] == ["aw-ssim", "two-stage"]


def test_ablate_does_not_mix_settings(surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add(Row("stripes", "aw-ssim", 0, 0.9, 0.9, 0.9, 1.0, fingerprint="of other settings"))
    assert _ablate(tmp_path, surface) == 2
    assert "with other settings" in capsys.readouterr().err


def test_jobs_run_in_processes_of_their_own(surface: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _ablate(out, surface, "--jobs=2") == 0
    assert {str(row["method"]) for row in _rows(out)} == {"aw-ssim", "two-stage"}
    assert (out / "runs/stripes-aw-ssim-seed0/detector").is_dir()
    table = (out / "table.md").read_text()
    assert "–" not in table  # noqa: RUF001


def test_ctrl_c_stops_every_process_after_its_step(surface: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = [f"--data.root={surface}", *QUICK, *METHODS, "--seeds=1", "--jobs=2", "--first-stage.epochs=2000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "twostage", "ablate", str(out), *flags],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    runs = [out / f"runs/stripes-{method}-seed0" for method in ("aw-ssim", "two-stage")]
    try:
        deadline = time.monotonic() + 240
        while not all((run / "history.jsonl").is_file() and (run / "history.jsonl").read_text() for run in runs):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no step in four minutes"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # As the terminal does.
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    for run in runs:
        assert list((run / "checkpoints").iterdir()), "its finished steps were saved"


def test_an_error_in_a_process_is_the_callers_error(tmp_path: Path) -> None:
    trial = trials_of("x", Config(device="tpu"), ["two-stage"], seeds=1)[0]
    results = Results(tmp_path / "results.jsonl")
    with pytest.raises(ConfigError, match="device is 'tpu'; accepted"):
        trials.run_in_processes([trial], tmp_path, 2, results, Progress())
    assert results.rows == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds=0"], "seeds is 0"),
        (["--jobs=0"], "jobs is 0; accepted: at least 1"),
        (["--data.root=nowhere"], "nowhere"),
        (["--preset=ae-ssim"], None),
    ],
)
def test_ablate_refuses(
    flags: list[str], message: str | None, surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if message is None:
        with pytest.raises(SystemExit, match="2"):
            _ablate(tmp_path / "out", surface, *flags)
        return
    assert _ablate(tmp_path / "out", surface, *flags) == 2
    assert message in capsys.readouterr().err


def test_methods_cannot_be_compared_without_defective_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surface = make_surface(tmp_path / "surface", defective=0)
    assert _ablate(tmp_path / "out", surface) == 2
    assert "test images of these kinds: good; accepted: good and at least one defect" in capsys.readouterr().err


def test_a_folder_with_other_files_is_not_used(
    surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert _ablate(tmp_path, surface, "--overwrite") == 2
    assert "holds files and no comparison" in capsys.readouterr().err


def test_reproduce_puts_our_figure_beside_the_papers_and_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "mvtec"
    make_surface(root / "wood")
    make_surface(root / "pill")
    seen: dict[str, Config] = {}

    def run(trial: Trial, folder: Path, **rest: object) -> Row:
        seen[trial.data] = trial.config
        return replace(_row(trial.data, pixel_auroc=0.75), fingerprint=trial.fingerprint)

    with mock.patch.object(trials, "run_trial", run):
        assert main(["reproduce", str(root), f"--out={tmp_path / 'out'}"]) == 0
    captured = capsys.readouterr()
    assert "left out: tile, leather, carpet, hazelnut" in captured.err
    lines = captured.out.splitlines()
    assert "| wood | 75.00 | 97.10 | 73.00 |" in lines
    assert "| pill | 75.00 | 95.64 | 89.50 |" in lines
    assert "| average | 75.00 | 96.37 | 81.25 |" in lines
    assert any("Not there" in line and "tile, leather, carpet, hazelnut" in line for line in lines)
    assert {config.data.image_size for config in seen.values()} == {512}
    assert seen["wood"].first_stage.loss.weights != seen["pill"].first_stage.loss.weights


def test_the_papers_columns_average_to_its_own_averages() -> None:
    rows = [_row(category, pixel_auroc=PAPER_OURS[category] / 100) for category in CATEGORIES]
    average = reproduction_table(["two-stage"], rows, missing=[]).splitlines()[-1]
    # Table 1's last row: 97.69 and 80.51 (its digits are cut, not rounded, in the second).
    assert average == "| average | 97.69 | 97.69 | 80.52 |"
    assert PAPER_AE_SSIM.keys() == PAPER_OURS.keys() == set(CATEGORIES)


def test_reproduce_refuses_a_folder_without_the_categories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", str(tmp_path), f"--out={tmp_path / 'out'}"]) == 2
    assert "holds none of tile, wood" in capsys.readouterr().err
    assert main(["reproduce", str(tmp_path), "--data.root=x"]) == 2
    assert "accepted: the folder of MVTec AD as ROOT alone" in capsys.readouterr().err


def test_mean_and_spread_are_in_percent_over_seeds() -> None:
    rows = [_row(seed=seed, pixel_auroc=value) for seed, value in enumerate((0.90, 0.92, 0.97))]
    assert mean_and_spread(rows, "pixel_auroc") == "93.00 ± 3.61"
    assert mean_and_spread(rows[:1], "pixel_auroc") == "90.00"
    assert mean_and_spread(rows, "aupro") == "–"  # noqa: RUF001


def test_trials_differ_by_method_and_seed() -> None:
    found = trials_of("x", Config(seed=10), ["aw-ssim", "two-stage"], seeds=2)
    assert [(trial.method, trial.config.seed) for trial in found] == [
        ("aw-ssim", 10),
        ("two-stage", 10),
        ("aw-ssim", 11),
        ("two-stage", 11),
    ]
    assert len({trial.fingerprint for trial in found}) == 4
    moved = replace(found[0], config=replace(found[0].config, device="cpu", checkpoint_every=7))
    assert moved.fingerprint == found[0].fingerprint, "these change no figure"


def test_a_damaged_results_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"data": "x"}\n')
    with pytest.raises(OutputError, match=r"results\.jsonl holds no results of a comparison"):
        Results(tmp_path / "results.jsonl")


def test_progress_says_whose_work_it_is(surface: Path, tmp_path: Path) -> None:
    tasks: set[str] = set()

    class Watch(Progress):
        def update(self, task: str, done: int, total: int, detail: str = "") -> None:
            tasks.add(task)

    def run(trial: Trial, folder: Path, *, progress: Progress, **rest: object) -> Row:
        progress.update("training", 1, 2)
        return replace(_row(trial.data), fingerprint=trial.fingerprint)

    with mock.patch.object(trials, "run_trial", run):
        trials.run_trials(
            trials_of("x", Config(), ["two-stage"], 1), tmp_path, jobs=1, overwrite=False, progress=Watch()
        )
    assert tasks == {"runs", "training"}
