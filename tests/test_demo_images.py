"""The demonstration's images and their defects."""

import socket
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Generator, Tensor

from twostage.config import DataConfig
from twostage.data import check_images, find_samples, read_image
from twostage.demo import BLEMISHES, SURFACES, write_demo_images
from twostage.errors import DataError, OutputError

skimage_data = pytest.importorskip("skimage.data", reason="the demonstration's photographs come with scikit-image")


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a download was tried")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's images, written where no network can be reached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        return write_demo_images(tmp_path_factory.mktemp("demo") / "images", seed=0)


def surface(seed: int = 0, side: int = 96) -> Tensor:
    """A random texture with structure of a few pixels, [side, side] in [0, 1]."""
    coarse = torch.rand(1, 1, side // 4, side // 4, generator=Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")[0, 0]


@cache
def places_of_rows(name: str) -> dict[bytes, tuple[int, int]]:
    """Row and column of every 160 pixels in a row of a photograph."""
    photograph = getattr(skimage_data, name)()
    return {photograph[row, left : left + 160].tobytes(): (row, left) for row in range(512) for left in range(353)}


@pytest.mark.parametrize("name", SURFACES)
def test_each_surface_is_a_clean_data_set(demo: Path, name: str) -> None:
    config = DataConfig(root=demo / name, image_size=None)
    assert check_images(config, patch_size=128) == []
    images = find_samples(config)
    assert Counter(sample.kind for sample in images.train) == {"good": 64}
    assert Counter(sample.kind for sample in images.test) == {"good": 16, **dict.fromkeys(BLEMISHES, 8)}


@pytest.mark.parametrize("name", SURFACES)
def test_train_and_test_share_no_pixel_of_the_photograph(demo: Path, name: str) -> None:
    rows = places_of_rows(name)
    images = find_samples(DataConfig(root=demo / name))

    def columns_of(paths: list[Path]) -> set[int]:
        columns: set[int] = set()
        for path in paths:
            _, left = rows[np.asarray(Image.open(path))[0].tobytes()]
            columns |= set(range(left, left + 160))
        return columns

    trained = columns_of([sample.path for sample in images.train])
    tested = columns_of([sample.path for sample in images.test if sample.kind == "good"])
    assert not trained & tested
    assert len(trained) > 300


def test_the_same_seed_gives_the_same_files_and_another_seed_others(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twostage.demo.surfaces.SURFACES", ("brick",))
    again = write_demo_images(tmp_path / "again", seed=0)
    other = write_demo_images(tmp_path / "other", seed=1)
    files = sorted(path.relative_to(demo) for path in (demo / "brick").rglob("*.png"))
    for folder in (again, other):
        assert sorted(path.relative_to(folder) for path in folder.rglob("*.png")) == files
    assert all((demo / path).read_bytes() == (again / path).read_bytes() for path in files)
    assert sum((demo / path).read_bytes() != (other / path).read_bytes() for path in files) > 0.9 * len(files)


def test_complete_images_are_used_again_and_damage_is_refused(demo: Path) -> None:
    image = demo / "brick/train/good/000.png"
    before = image.stat().st_mtime_ns
    assert write_demo_images(demo, seed=0) == demo
    assert image.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match=r"holds demonstration images of .*'seed': 0.*, not of .*'seed': 5.*accepted"):
        write_demo_images(demo, seed=5)
    content = image.read_bytes()
    image.unlink()
    try:
        with pytest.raises(OutputError, match=r"holds 479 of 480 images; accepted: all of them, or none"):
            write_demo_images(demo, seed=0)
    finally:
        image.write_bytes(content)


def test_another_folder_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(OutputError, match="holds something else than the demonstration's images; accepted: a new or"):
        write_demo_images(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("twostage.demo.surfaces._write", fail)
    with pytest.raises(OutputError, match="images cannot be written: no space left on device"):
        write_demo_images(tmp_path / "images")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="images cannot be written: "):
        write_demo_images(tmp_path / "file" / "images")


def test_without_scikit_image_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(DataError, match="scikit-image, which is not installed; pip install scikit-image"):
        write_demo_images(tmp_path / "images")


def test_another_photograph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skimage_data, "grass", lambda: np.zeros((8, 8), dtype=np.uint8))
    with pytest.raises(DataError, match=r"'grass' is torch.uint8 \(8, 8\); accepted: uint8 \(512, 512\)"):
        write_demo_images(tmp_path / "images")


@pytest.mark.parametrize("name", SURFACES)
@pytest.mark.parametrize("kind", BLEMISHES)
def test_masks_of_the_demo_are_small_and_the_defect_stands_out_in_them(demo: Path, name: str, kind: str) -> None:
    """The intact cut-out is found in the photograph by its rows; what differs from it is the defect."""
    photograph = getattr(skimage_data, name)().astype(int)
    rows = places_of_rows(name)
    for sample in find_samples(DataConfig(root=demo / name)).test:
        if sample.kind != kind:
            continue
        assert sample.mask is not None
        image = read_image(sample.path, color="gray", max_pixels=10**6)[0].numpy()
        places = [(rows[line.tobytes()], index) for index, line in enumerate(image) if line.tobytes() in rows]
        (row, left), index = places[0]
        change = np.abs(image.astype(int) - photograph[row - index : row - index + 160, left : left + 160])
        mask = np.asarray(Image.open(sample.mask)) > 0
        assert 0.003 < mask.mean() < 0.25
        assert np.sqrt((change[mask] ** 2).mean()) > 15
        assert change[~mask].mean() < 0.25  # of 255


@pytest.mark.parametrize("kind", BLEMISHES)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=15)
def test_a_defect_changes_the_image_where_its_mask_says(kind: str, seed: int) -> None:
    image = surface(seed % 5)
    changed, mask = BLEMISHES[kind](image.clone(), Generator().manual_seed(seed))
    assert changed.shape == mask.shape == image.shape
    assert mask.dtype == torch.bool
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    change = (changed - image).abs()
    assert float(change[mask].square().mean().sqrt()) > 0.045
    untouched = torch.nn.functional.max_pool2d(mask[None, None].float(), 41, stride=1, padding=20)[0, 0] == 0
    assert torch.equal(changed[untouched], image[untouched])
    again, mask_again = BLEMISHES[kind](image, Generator().manual_seed(seed))
    assert torch.equal(again, changed)
    assert torch.equal(mask_again, mask)


@pytest.mark.parametrize("add", BLEMISHES.values())
@pytest.mark.parametrize("image", [torch.rand(3, 96, 96), torch.rand(63, 96), torch.zeros(96, 96, dtype=torch.uint8)])
def test_blemishes_refuse_what_is_no_gray_image(add: Callable[..., object], image: Tensor) -> None:
    with pytest.raises(ValueError, match=r"image is torch.*; accepted: floating point \[H, W\] of at least 64"):
        add(image, Generator())


@pytest.mark.parametrize("kind", ["missing_texture", "warp"])
def test_texture_cannot_be_lost_where_there_is_none(kind: str) -> None:
    with pytest.raises(ValueError, match=f"no visible {kind} could be drawn; accepted: .*with texture"):
        BLEMISHES[kind](torch.full((64, 64), 0.5), Generator().manual_seed(0))
