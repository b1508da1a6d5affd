"""twostage predict: table, pictures, unreadable images, continuing."""

import csv
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from cli_data import QUICK, make_surface, texture
from image_files import write
from PIL import Image

from twostage import Detector, Prediction
from twostage.cli import main
from twostage.errors import DataError
from twostage.run_folder import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("trained")
    run = RunFolder(folder / "run")
    assert main(["train", str(run.path), f"--data.root={make_surface(folder / 'stripes')}", *QUICK]) == 0
    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    write(folder / "a.png", texture(300))
    write(folder / "line 2/b.jpg", texture(301))
    return folder


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _predict(trained: RunFolder, images: Path, out: Path, *flags: str) -> int:
    return main(["predict", str(trained.path), str(images), str(out), "--device=cpu", *flags])


def test_the_table_holds_what_the_detector_says(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _predict(trained, images, out) == 0
    rows = _rows(out)
    assert [row["path"] for row in rows] == ["a.png", "line 2/b.jpg"]
    detector = Detector.load(trained.detector, device="cpu")
    for row in rows:
        expected = detector.predict(images / row["path"])
        assert float(row["score"]) == expected.score
        assert float(row["threshold"]) == detector.calibration.threshold
        assert row["verdict"] == ("defective" if expected.defective else "good")


def test_every_image_gets_a_heat_map_and_an_overlay_of_its_size(
    trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert _predict(trained, images, out) == 0
    for folder in ("heatmaps", "overlays"):
        for name in ("a.png", "line 2/b.jpg.png"):
            with Image.open(out / folder / name) as picture:
                assert picture.size == (96, 96)
                assert picture.format == "PNG"


def test_pictures_can_be_left_out(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    assert _predict(trained, images, tmp_path / "out", "--no-pictures") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]


def test_a_saved_detector_serves_as_well_as_a_run(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    alone = tmp_path / "detector"
    shutil.copytree(trained.detector, alone)
    assert main(["predict", str(alone), str(images), str(tmp_path / "out"), "--device=cpu"]) == 0
    assert len(_rows(tmp_path / "out")) == 2


def test_unreadable_images_are_listed_and_stop_nothing(
    trained: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:200])
    write(images / "small.png", texture(302)[:20, :90])
    (images / "Thumbs.db").write_bytes(b"litter")
    out = tmp_path / "out"
    assert _predict(trained, images, out) == 1
    verdicts = {row["path"]: row["verdict"] for row in _rows(out)}
    assert verdicts["broken.png"] == "unreadable"
    assert {verdicts["a.png"], verdicts["line 2/b.jpg"]} <= {"good", "defective"}
    assert "Thumbs.db" not in verdicts
    captured = capsys.readouterr()
    assert "unreadable: broken.png" in captured.out
    assert "broken.png" in captured.err


def test_results_are_replaced_only_with_overwrite(
    trained: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert _predict(trained, images, out) == 0
    (images / "a.png").unlink()
    assert _predict(trained, images, out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert len(_rows(out)) == 2
    assert _predict(trained, images, out, "--overwrite") == 0
    assert [row["path"] for row in _rows(out)] == ["line 2/b.jpg"]


def test_ctrl_c_keeps_every_finished_row_and_resume_scores_the_rest(
    trained: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    real = Detector.predict_files
    scored: list[str] = []

    def predict_files(detector: Detector, paths: Iterable[Path]) -> Iterator[tuple[Path, Prediction | DataError]]:
        for path, found in real(detector, paths):
            if path.name == "b.jpg" and "again" not in scored:
                raise KeyboardInterrupt
            scored.append(path.name)
            yield path, found

    with mock.patch.object(Detector, "predict_files", predict_files):
        assert _predict(trained, images, out) == 130
        assert "--resume" in capsys.readouterr().err
        assert [row["path"] for row in _rows(out)] == ["a.png"]
        scored.append("again")
        assert _predict(trained, images, out, "--resume") == 0
    assert scored == ["a.png", "again", "b.jpg"], "what was scored is not scored again"
    assert [row["path"] for row in _rows(out)] == ["a.png", "line 2/b.jpg"]


def test_resume_tries_unreadable_images_again(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    good = (images / "a.png").read_bytes()
    (images / "a.png").write_bytes(good[:100])
    out = tmp_path / "out"
    assert _predict(trained, images, out) == 1
    (images / "a.png").write_bytes(good)
    assert _predict(trained, images, out, "--resume") == 0
    assert {row["verdict"] for row in _rows(out)} <= {"good", "defective"}
    assert len(_rows(out)) == 2


def test_resume_passes_over_a_row_that_a_kill_cut_short(trained: RunFolder, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _predict(trained, images, out) == 0
    table = out / "predictions.csv"
    table.write_text(table.read_text()[:-5])
    assert _predict(trained, images, out, "--resume") == 0
    assert [row["path"] for row in _rows(out)] == ["a.png", "line 2/b.jpg"]


def test_resume_does_not_mix_two_detectors(
    trained: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert _predict(trained, images, out) == 0
    table = out / "predictions.csv"
    threshold = _rows(out)[0]["threshold"]
    table.write_text(table.read_text().replace(threshold, "0.5"))
    assert _predict(trained, images, out, "--resume") == 2
    assert "threshold 0.5" in capsys.readouterr().err


def test_results_inside_the_folder_of_images_are_not_scored(trained: RunFolder, images: Path) -> None:
    assert _predict(trained, images, images / "results") == 0
    assert _predict(trained, images, images / "results", "--overwrite") == 0
    assert len(_rows(images / "results")) == 2


@pytest.mark.parametrize("problem", ["missing", "empty", "file in the way", "no detector", "both", "other table"])
def test_bad_input_is_refused(
    problem: str, trained: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    write(tmp_path / "other/predictions.csv.png", texture(1))
    (tmp_path / "other/predictions.csv").write_text("a,b\n1,2\n")
    cases: dict[str, tuple[list[Path | str], str]] = {
        "missing": ([trained.path, tmp_path / "nowhere", tmp_path / "out"], "nowhere is no folder"),
        "empty": ([trained.path, tmp_path / "empty", tmp_path / "out"], "empty holds no file"),
        "file in the way": ([trained.path, images, tmp_path / "file"], "cannot be written"),
        "no detector": ([images, images, tmp_path / "out"], str(images)),
        "both": ([trained.path, images, tmp_path / "out", "--resume", "--overwrite"], "accepted: one of them"),
        "other table": ([trained.path, images, tmp_path / "other", "--resume"], "is no table of predictions"),
    }
    arguments, message = cases[problem]
    assert main(["predict", *map(str, arguments), "--device=cpu"]) == 2
    assert message in capsys.readouterr().err
