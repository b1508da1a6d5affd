"""The folder of a run: nothing in it is lost by accident."""

import os
from pathlib import Path

import pytest

from twostage.config import Config
from twostage.configfile import load_config
from twostage.errors import OutputError
from twostage.run_folder import RunFolder

OURS = (
    "history.jsonl",
    "evaluation.json",
    "report.html",
    "checkpoints/step-000000001/state.json",
    "detector/x/state.json",
)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["new", "deep/er/new", "."])
def test_a_new_or_empty_folder_becomes_a_run(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path / name)
    run.open_new(Config(seed=7))
    run.require_run()
    assert load_config(run.config) == Config(seed=7)
    assert files_of(run.path) == {"config.toml", ".launch"}


def test_a_run_is_never_replaced_unasked(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.open_new(Config(seed=1))
    fill(tmp_path, *OURS)
    with pytest.raises(OutputError, match=r"already holds a run; accepted: .*--resume.*--overwrite"):
        run.open_new(Config(seed=2))
    assert load_config(run.config) == Config(seed=1)
    assert files_of(tmp_path) == {"config.toml", ".launch", *OURS}


def test_overwriting_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.open_new(Config(seed=1))
    foreign = ("notes.txt", "pictures/a.png")
    fill(tmp_path, *OURS, *foreign)
    run.open_new(Config(seed=2), overwrite=True)
    assert load_config(run.config) == Config(seed=2)
    assert files_of(tmp_path) == {"config.toml", ".launch", *foreign}


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.alone():
        run.open_new(Config())
        expected = pytest.raises(OutputError, match=r"run: another process trains this run; accepted: one at a time")
        with expected, run.alone():
            pass
    with run.alone():
        assert run.config.exists()


def test_a_run_knows_the_launch_that_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.open_new(Config())
    assert not run.opened_by_this_launch
    for name, other in (("a", "b"), ("none", "a")):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        assert not run.opened_by_this_launch
        run.open_new(Config(), overwrite=True)
        assert run.opened_by_this_launch
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", other)
        assert not run.opened_by_this_launch
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not run.opened_by_this_launch


def test_overwriting_removes_evaluations_of_the_earlier_detector(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.open_new(Config())
    (run.evaluations / "other").mkdir(parents=True)
    run.open_new(Config(), overwrite=True)
    assert not run.evaluations.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_files_and_no_run_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    fill(tmp_path, "report.html", "checkpoints/mine.txt")
    with pytest.raises(OutputError, match="holds files and no run; accepted: a new or empty folder"):
        RunFolder(tmp_path).open_new(Config(), overwrite=overwrite)
    assert files_of(tmp_path) == {"report.html", "checkpoints/mine.txt"}


def test_hidden_files_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """A kill in the first write leaves one."""
    fill(tmp_path, ".config.toml.0123.tmp")
    RunFolder(tmp_path).open_new(Config())
    assert (tmp_path / ".config.toml.0123.tmp").exists()


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_place_that_can_be_no_folder_is_refused(tmp_path: Path, place: str) -> None:
    fill(tmp_path, "file")
    with pytest.raises(OutputError, match=r"file.* cannot be used for a run"):
        RunFolder(tmp_path / place).open_new(Config())
    assert (tmp_path / "file").read_text() == "file"


@pytest.mark.parametrize("place", [".", "new/run"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may write anywhere, so the answer is made up.
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == tmp_path and mode & os.W_OK))
    with pytest.raises(OutputError, match=rf"cannot be used for a run: {tmp_path} is no folder that can be written"):
        RunFolder(tmp_path / place).open_new(Config())
    assert list(tmp_path.iterdir()) == []


def test_a_failure_to_make_the_folder_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"cannot be used for a run: .*Permission denied"):
        RunFolder(tmp_path / "run").open_new(Config())


def test_checking_changes_nothing(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").require_usable()
    assert list(tmp_path.iterdir()) == []
    run = RunFolder(tmp_path)
    run.open_new(Config())
    fill(tmp_path, *OURS)
    run.require_usable(overwrite=True)
    assert files_of(tmp_path) == {"config.toml", ".launch", *OURS}
    with pytest.raises(OutputError, match="already holds a run"):
        run.require_usable()


def test_what_holds_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"holds no run \(no config\.toml\)"):
        RunFolder(tmp_path / "missing").require_run()


def test_the_present_configuration_can_be_recorded(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.open_new(Config(checkpoint_every=5))
    run.record(Config(checkpoint_every=9))
    assert load_config(run.config).checkpoint_every == 9
    with pytest.raises(OutputError, match="cannot be written"):
        RunFolder(tmp_path / "missing").record(Config())
