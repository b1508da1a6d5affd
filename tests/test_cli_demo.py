"""twostage demo: the user's own folder, its own earlier output, and the way without LPIPS."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cli_data import make_surface

from twostage.cli import demo, main
from twostage.cli.demo import demo_config
from twostage.config import Config, ScoringConfig
from twostage.configfile import load_config
from twostage.errors import WeightsError
from twostage.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch in each stage, patches of 64 pixels, and no LPIPS weights anywhere."""
    monkeypatch.setattr(demo, "STEPS", (1, 1))
    monkeypatch.setattr(demo, "OWN_IMAGE_SIZE", 128)

    def no_weights(location: Path | None = None) -> None:
        raise WeightsError("no trunk is here: no network. Three ways out: (1) ...")

    monkeypatch.setattr(demo, "load_lpips_weights", no_weights)


@pytest.fixture
def _one_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """The score map is given: choosing takes the longest in so short a training."""

    def config(root: Path, **rest: Any) -> Config:
        return replace(demo_config(root, **rest), scoring=ScoringConfig(map="residual", lpips=False, smoothing=2.0))

    monkeypatch.setattr(demo, "demo_config", config)


def test_without_lpips_it_goes_on_and_says_so_on_terminal_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surface = make_surface(tmp_path / "stripes", train=3, good=1, defective=1)
    out = tmp_path / "out"
    assert main(["demo", f"--data={surface}", f"--out={out}"]) == 0
    captured = capsys.readouterr()
    sentence = "Without LPIPS (no trunk is here: no network): the second stage trains with AW-SSIM alone."
    assert sentence in captured.err
    assert sentence in (out / "report.html").read_text()
    config = load_config(RunFolder(out / "runs/stripes").config)
    assert not config.uses_lpips
    assert config.second_stage.defective
    assert "stripes" in captured.out
    assert f"report: {out / 'report.html'}" in captured.out


@pytest.mark.usefixtures("_one_map")
def test_a_folder_of_data_sets_gets_an_index_that_links_their_reports(tmp_path: Path) -> None:
    for name in ("b & w", "stripes"):
        make_surface(tmp_path / "own" / name, train=3, good=1, defective=1)
    (tmp_path / "own/readme.txt").write_text("")
    out = tmp_path / "out"
    assert main(["demo", f"--data={tmp_path / 'own'}", f"--out={out}"]) == 0
    page = (out / "report.html").read_text()
    links = set(re.findall(r'href="([^"]+)"', page))
    assert links == {"runs/b%20%26%20w/report.html", "runs/stripes/report.html"}
    assert "b &amp; w" in page
    assert page.count("data:image/png;base64,") == 2, "one picture for each kind of defect and surface"
    assert not re.search(r'(src|href)="(https?:)?//', page), "it needs no network"


@pytest.mark.usefixtures("_one_map")
def test_a_second_run_replaces_its_own_earlier_output_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    first = make_surface(tmp_path / "first", train=3, good=0)
    second = make_surface(tmp_path / "second", train=3, good=0)
    assert main(["demo", f"--data={first}", f"--out={out}"]) == 0
    (out / "mine.txt").write_text("mine")
    assert main(["demo", f"--data={second}", f"--out={out}"]) == 0
    assert sorted(path.name for path in (out / "runs").iterdir()) == ["second"]
    assert (out / "mine.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "report.html").write_text("a thesis")
    assert main(["demo", f"--data={second}", f"--out={foreign}"]) == 2
    assert "holds files and no demo" in capsys.readouterr().err
    assert (foreign / "report.html").read_text() == "a thesis"


@pytest.mark.usefixtures("_one_map")
def test_bad_data_is_refused_before_an_earlier_demo_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["demo", f"--data={make_surface(tmp_path / 'fine', train=3, good=0)}", f"--out={out}"]) == 0
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "nowhere"):
        assert main(["demo", f"--data={tmp_path / wrong}", f"--out={out}"]) == 2
        assert wrong in capsys.readouterr().err
        assert (out / "report.html").is_file()


def test_weights_asked_for_by_name_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    surface = make_surface(tmp_path / "stripes", train=3, good=0)
    flags = [f"--data={surface}", f"--out={tmp_path / 'out'}", "--lpips-weights=nowhere.npz"]
    assert main(["demo", *flags]) == 2
    assert "no trunk is here" in capsys.readouterr().err


def test_the_training_is_short_whatever_the_size_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STEPS", (100, 50))
    surface = make_surface(tmp_path / "stripes", train=8, good=0)
    with mock.patch.object(demo, "find_samples") as found:
        for images, epochs in ((8, (50, 25)), (400, (1, 1)), (40, (10, 5))):
            found.return_value.train = range(images)
            config = demo_config(surface, image_size=256, with_lpips=True)
            assert (config.first_stage.epochs, config.second_stage.epochs) == epochs
    assert config.second_stage.loss == Config().second_stage.loss, "with LPIPS all else is the default"
    assert config.scoring == Config().scoring
