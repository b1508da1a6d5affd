"""The cache on the disk: the images as they would be read, rebuilt where they changed, whole after any kill."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import MAX_PIXELS, noise, png_16, write

from twostage.config import DataConfig
from twostage.data import cache as cache_module
from twostage.data.cache import ImageCache
from twostage.data.loading import load_image
from twostage.data.packing import to_unit_range
from twostage.data.prepared import Prepared, PreparedImage, Preparer
from twostage.data.samples import GOOD, Sample
from twostage.defects.appearance import describe
from twostage.errors import OutputError

CONFIG = DataConfig(image_size=24, max_pixels=MAX_PIXELS)


class Counting(Preparer):
    """Remembers which files it prepared."""

    prepared: list[str] = []  # noqa: RUF012

    def __call__(self, path: Path) -> PreparedImage:
        self.prepared.append(path.name)
        return super().__call__(path)


@pytest.fixture
def preparer() -> Counting:
    Counting.prepared = []
    return Counting(CONFIG, "gray", describe)


def make_files(folder: Path, count: int = 7) -> list[Path]:
    return [write(folder / f"{index:03d}.png", noise(index, 24 + index % 3, 40)) for index in range(count)]


def opened(folder: Path, preparer: Preparer, paths: Sequence[Path]) -> Prepared:
    prepared, findings = ImageCache(folder, preparer).open(paths)
    assert findings == []
    assert prepared is not None
    return prepared


def assert_images(prepared: Prepared, paths: Sequence[Path], color: str = "gray") -> None:
    assert len(prepared.images) == len(paths)
    for index, path in enumerate(paths):
        expected = load_image(Sample(path, GOOD), CONFIG, "gray" if color == "gray" else "rgb")
        found = prepared.images[index]
        assert torch.equal(found, expected if found.dtype == torch.uint8 else to_unit_range(expected))
        assert np.array_equal(prepared.features[index], describe(expected).numpy())


def test_it_holds_every_image_as_it_would_be_read(tmp_path: Path, preparer: Counting) -> None:
    paths = make_files(tmp_path / "images")
    values = np.random.default_rng(0).integers(0, 2**16, (30, 30, 1), dtype=np.uint16)
    paths.append(png_16(tmp_path / "deep.png", values))
    images = opened(tmp_path / "cache", preparer, paths)
    assert images.images[0].dtype == torch.float32, "as one of them is"
    assert_images(images, paths)
    rgb = Preparer(CONFIG, "rgb", describe)
    assert_images(opened(tmp_path / "rgb", rgb, paths), paths, "rgb")


def test_what_is_there_is_not_read_again_in_any_order(tmp_path: Path, preparer: Counting) -> None:
    paths = make_files(tmp_path / "images")
    opened(tmp_path / "cache", preparer, paths[:4])
    assert sorted(preparer.prepared) == [path.name for path in paths[:4]]
    preparer.prepared.clear()
    mixed = paths[::-1]
    assert_images(opened(tmp_path / "cache", preparer, mixed), mixed)
    assert sorted(preparer.prepared) == [path.name for path in paths[4:]]
    preparer.prepared.clear()
    some = [paths[5], paths[0]]
    assert_images(opened(tmp_path / "cache", preparer, some), some)
    assert preparer.prepared == []


def test_a_changed_file_is_read_again_and_a_touched_one_is_not(tmp_path: Path, preparer: Counting) -> None:
    paths = make_files(tmp_path / "images")
    opened(tmp_path / "cache", preparer, paths)
    preparer.prepared.clear()
    write(paths[2], noise(99, 26, 40))
    os.utime(paths[4], ns=(1, 1))
    assert_images(opened(tmp_path / "cache", preparer, paths), paths)
    assert preparer.prepared == [paths[2].name]
    preparer.prepared.clear()
    opened(tmp_path / "cache", preparer, paths)
    assert preparer.prepared == []


def test_files_that_cannot_be_read_are_all_named_and_the_others_kept(tmp_path: Path, preparer: Counting) -> None:
    paths = make_files(tmp_path / "images")
    paths[1].write_bytes(b"no image at all, and yet a file")
    paths[3].write_bytes(b"")
    prepared, findings = ImageCache(tmp_path / "cache", preparer).open(paths)
    assert prepared is None
    assert [finding.path for finding in findings] == [paths[1], paths[3]]
    assert all(finding.fatal for finding in findings)
    missing, found = ImageCache(tmp_path / "cache", preparer).open([*paths, tmp_path / "gone.png"])
    assert missing is None
    assert [finding.path.name for finding in found] == ["gone.png"]
    preparer.prepared.clear()
    good = [path for index, path in enumerate(paths) if index not in (1, 3)]
    assert_images(opened(tmp_path / "cache", preparer, good), good)
    assert preparer.prepared == []


def test_images_read_before_stay_readable_while_others_are_added(tmp_path: Path, preparer: Counting) -> None:
    paths = make_files(tmp_path / "images")
    early = opened(tmp_path / "cache", preparer, paths[:3])
    opened(tmp_path / "cache", preparer, paths)
    assert_images(early, paths[:3])


class Slow(Preparer):
    def __call__(self, path: Path) -> PreparedImage:
        time.sleep(0.02)
        return super().__call__(path)


def build_slowly(folder: Path, paths: Sequence[Path]) -> None:
    """In a forked process, which has none of the threads that torch may have started before."""
    torch.set_num_threads(1)
    cache_module._COMMIT_IMAGES = 2
    ImageCache(folder, Slow(CONFIG, "gray", describe)).open(paths)


def test_killed_at_any_moment_it_goes_on_with_what_was_finished(tmp_path: Path, preparer: Counting) -> None:
    paths = make_files(tmp_path / "images", 30)
    cache = tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    process = context.Process(target=build_slowly, args=(cache, paths))
    process.start()
    deadline = time.monotonic() + 60
    while len(list(cache.glob("rows-*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.join()
    finished = 2 * len(list(cache.glob("rows-*")))
    with next(iter(cache.glob("pixels-*"))).open("ab") as file:
        file.write(b"half an image")
    assert_images(opened(cache, preparer, paths), paths)
    assert len(preparer.prepared) == len(paths) - finished


def test_two_processes_that_build_at_once_end_with_one_good_cache(tmp_path: Path, preparer: Counting) -> None:
    paths = make_files(tmp_path / "images", 20)
    cache = tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=build_slowly, args=(cache, paths)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert_images(opened(cache, preparer, paths), paths)
    assert preparer.prepared == []
    assert sum(file.stat().st_size for file in cache.glob("pixels-*")) < 1.2 * sum(
        load_image(Sample(path, GOOD), CONFIG, "gray").numel() for path in paths
    ), "each image is kept once"


def test_without_locks_two_builders_do_each_other_no_harm(
    tmp_path: Path, preparer: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_files(tmp_path / "images", 12)
    cache = tmp_path / "cache"

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("twostage.locking.fcntl.flock", no_locks)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=build_slowly, args=(cache, paths)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert_images(opened(cache, preparer, paths), paths)


def test_a_full_disk_is_said(tmp_path: Path, preparer: Counting) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError, match=r"the cache .* cannot be written"):
        ImageCache(blocked, preparer).open(make_files(tmp_path / "images"))
