"""twostage evaluate, report, check-data, synthesize, and the help."""

import json
from pathlib import Path

import numpy as np
import pytest
from cli_data import QUICK, make_surface, texture
from image_files import write
from PIL import Image

from twostage.cli import main
from twostage.run_folder import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("trained")
    run = RunFolder(folder / "run")
    assert main(["train", str(run.path), f"--data.root={make_surface(folder / 'stripes')}", *QUICK]) == 0
    return run


def test_evaluate_finds_what_training_found(trained: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(trained.evaluation.read_text())
    assert main(["evaluate", str(trained.path), "--device=cpu"]) == 0
    after = json.loads(trained.evaluation.read_text())
    assert after["metrics"] == before["metrics"]
    assert after["timing"]["training_seconds"] == before["timing"]["training_seconds"]
    assert f"{before['metrics']['overall']['pixel_auroc']:.4f}" in capsys.readouterr().out


def test_evaluate_on_other_data_leaves_the_runs_own_result(trained: RunFolder, tmp_path: Path) -> None:
    before = trained.evaluation.read_bytes()
    other = make_surface(tmp_path / "others", defective=3)
    assert main(["evaluate", str(trained.path), f"--data.root={other}", "--device=cpu"]) == 0
    assert trained.evaluation.read_bytes() == before
    values = json.loads((trained.path / "evaluations/others/evaluation.json").read_text())
    assert len(values["metrics"]["images"]) == 5
    assert (trained.path / "evaluations/others/report.html").is_file()


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_a_folder_without_a_finished_run_is_refused(
    command: str, trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    (tmp_path / "config.toml").write_bytes(trained.config.read_bytes())
    assert main([command, str(tmp_path)]) == 2
    assert "not finished" in capsys.readouterr().err


def test_evaluate_needs_test_images(trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = make_surface(tmp_path / "bare", good=0)
    assert main(["evaluate", str(trained.path), f"--data.root={bare}", "--device=cpu"]) == 2
    assert "bare holds no test images" in capsys.readouterr().err


def test_report_writes_the_page_and_nothing_else(trained: RunFolder, tmp_path: Path) -> None:
    before = trained.evaluation.read_bytes()
    page = tmp_path / "page.html"
    assert main(["report", str(trained.path), f"--out={page}", "--device=cpu"]) == 0
    assert trained.evaluation.read_bytes() == before
    assert page.read_text().count("<article") == 4, "an article for every test image"


def test_check_data_passes_a_clean_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    surface = make_surface(tmp_path / "clean")
    assert main(["check-data", f"--data.root={surface}", "--data.image-size=96", "--model.patch-size=64"]) == 0
    assert "0 errors, 0 notes" in capsys.readouterr().out


def test_check_data_prints_every_finding_errors_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    surface = make_surface(tmp_path / "surface")
    write(surface / "train/good/wide.png", np.zeros((96, 200), dtype=np.uint8))
    (surface / "train/good/000.png").write_bytes(b"no image")
    write(surface / "test/good/copy.png", texture(1))
    assert main(["check-data", f"--data.root={surface}", "--data.image-size=96", "--model.patch-size=64"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["error", "error", "note", "2"]
    assert any("000.png" in line for line in lines[:2])
    assert any("copy.png" in line for line in lines[:2])
    assert "wide.png" in lines[2]


def test_check_data_reads_its_settings_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    surface = make_surface(tmp_path / "surface")
    file = tmp_path / "settings.toml"
    file.write_text(f'[data]\nroot = "{surface}"\nimage_size = 256\n[second_stage]\nepochs = 2\n')
    assert main(["check-data", f"--config={file}"]) == 0
    assert "0 errors" in capsys.readouterr().out


def test_synthesize_draws_a_sheet_with_a_row_for_each_sample(tmp_path: Path) -> None:
    surface = make_surface(tmp_path / "surface")
    sheet = tmp_path / "sheet.png"
    sizes = ["--data.image-size=96", "--model.patch-size=64"]
    assert main(["synthesize", str(sheet), f"--data.root={surface}", *sizes, "--samples=3"]) == 0
    with Image.open(sheet) as picture:
        assert picture.size == (3 * 64 + 2 * 4, 18 + 3 * 64 + 2 * 4)


def test_synthesize_cuts_from_another_folder(tmp_path: Path) -> None:
    surface = make_surface(tmp_path / "surface")
    write(tmp_path / "sources/black.png", np.zeros((96, 96), dtype=np.uint8))
    flags = [f"--data.root={surface}", "--data.image-size=96", "--model.patch-size=64", "--samples=6"]
    black = [f"--defects.sources={tmp_path / 'sources'}", "--defects.brightness=0", "--defects.probability=1"]
    opaque = ["--defects.strength", "1", "1", "--defects.blur-share", "0", "0"]
    assert main(["synthesize", str(tmp_path / "sheet.png"), *flags, *black, *opaque]) == 0
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    covered = 0
    for top in range(18, pixels.shape[0], 64 + 4):
        defective, opacity = pixels[top : top + 64, 68:132], pixels[top : top + 64, 136:200]
        assert (defective[opacity == 255] == 0).all(), "covered pixels are the source's"
        covered += int((opacity == 255).sum())
    assert covered > 0


@pytest.mark.parametrize(
    ("sheet", "flags", "message"),
    [
        ("sheet.jpg", [], "accepted: a name that ends in .png"),
        ("sheet.png", ["--samples=0"], "samples is 0; accepted: at least 1"),
        ("sheet.png", ["--defects.max-defects=9"], "defects.max_defects is 9; accepted: 1 to 8"),
    ],
)
def test_synthesize_refuses(
    sheet: str, flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surface = make_surface(tmp_path / "surface")
    assert main(["synthesize", str(tmp_path / sheet), f"--data.root={surface}", *flags]) == 2
    assert message in capsys.readouterr().err


COMMANDS = ("demo", "train", "evaluate", "predict", "report", "check-data", "synthesize", "ablate", "reproduce")


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"• {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert f"usage: twostage {command} " in lines[0]
    assert "tyro" not in "\n".join(lines)


def test_an_unknown_flag_ends_with_status_2_and_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "run", "--data.rot=x"])
    assert "--data.root" in capsys.readouterr().err
