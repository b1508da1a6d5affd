"""Atomic writes: the old content or the new, never a mixture, and nothing left over."""

import os
import threading
from pathlib import Path

import pytest

from twostage.errors import OutputError
from twostage.files import sync_folder, write_bytes_atomic, write_durable, write_text_atomic


def test_content_is_replaced_whole_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_text_atomic(path, "a much longer first text: größer")
    assert path.read_text(encoding="utf-8") == "a much longer first text: größer"
    write_bytes_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)  # 254 of 255 bytes
    write_text_atomic(path, "x")
    assert path.read_text() == "x"


def test_data_reaches_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    events = []
    fsync, replace = os.fsync, Path.replace

    def recording_fsync(descriptor: int) -> None:
        events.append(f"fsync {'folder' if os.path.samestat(os.fstat(descriptor), tmp_path.stat()) else 'file'}")
        fsync(descriptor)

    def recording_replace(self: Path, target: Path) -> Path:
        events.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "replace", recording_replace)
    write_bytes_atomic(path, b"data")
    assert events == ["fsync file", "replace", "fsync folder"]


def test_failed_write_keeps_the_old_content_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"file cannot be written: .*No space left"):
        write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["missing/file", "plain/file", "folder"])
def test_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "plain").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=place):
        write_bytes_atomic(tmp_path / place, b"data")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "plain"]


def test_reader_never_sees_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([value]) * 100_000 for value in range(40)]
    write_bytes_atomic(path, contents[0])

    def write_all() -> None:
        for content in contents:
            write_bytes_atomic(path, content)

    writer = threading.Thread(target=write_all)
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(path.read_bytes())
    writer.join()
    assert set(seen) <= set(contents)
    assert path.read_bytes() == contents[-1]


def test_durable_write_refuses_a_file_that_exists(tmp_path: Path) -> None:
    write_durable(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        write_durable(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_folder_that_is_missing_cannot_be_synced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")
