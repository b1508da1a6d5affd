"""Checking a whole data set before training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import make_data_set, noise, png_bytes, write
from PIL import Image

from twostage.config import DataConfig
from twostage.data import Finding, check_images, require_clean
from twostage.errors import DataError


def check(root: Path) -> list[Finding]:
    return check_images(DataConfig(root=root, image_size=None, max_pixels=1_000_000), patch_size=16)


def by_place(root: Path, findings: list[Finding]) -> dict[str, Finding]:
    """The findings by their place below ``root``; fails where one place has several."""
    places = {str(finding.path.relative_to(root)): finding for finding in findings}
    assert len(places) == len(findings), findings
    return places


def test_clean_data_has_no_findings(tmp_path: Path) -> None:
    assert check(make_data_set(tmp_path)) == []


def test_everything_wrong_is_found_at_once(tmp_path: Path) -> None:
    root = make_data_set(tmp_path, train=8, good=5, defective=4)
    train, test, truth = root / "train/good", root / "test", root / "ground_truth/crack"
    (train / "000.png").write_bytes((train / "000.png").read_bytes()[:200])
    (train / "001.png").write_bytes(png_bytes(100_000, 100_000, 8, 0))
    Image.fromarray(noise(1)).save(train / "002.png", format="GIF")
    (train / "003.png").rename(train / "003.tif")
    Image.fromarray(np.full((24, 32), np.nan, dtype=np.float32)).save(train / "003.tif")
    (train / "notes.txt").write_text("not an image")
    Image.fromarray(noise(4)).save(test / "good/000.png", format="BMP")
    write(train / "007.png", noise(7, 12, 32))
    write(truth / "000_mask.png", noise(0, 25, 32))
    (truth / "001_mask.png").write_bytes(b"")
    (truth / "002_mask.png").unlink()
    write(truth / "077_mask.png", noise(0))
    (test / "dent").mkdir()
    fatal = by_place(root, [finding for finding in check(root) if finding.fatal])
    expected = {
        "train/good/000.png": "cannot be read",
        "train/good/001.png": "100000x100000 = 10000000000 pixels by its header; accepted: at most data.max_pixels",
        "train/good/002.png": "not an accepted image (its first bytes are b'GIF8",
        "train/good/003.tif": "768 pixels are NaN or infinite",
        "train/good/notes.txt": "not an accepted image",
        "train/good/007.png": "is 32x12 pixels, a patch 16x16; accepted: at least 16 on the shorter side",
        "test/good/000.png": f"is a test image with the pixels of the training image {train / '004.png'}; accepted",
        "ground_truth/crack/000_mask.png": f"is 32x25 pixels; accepted: 32x24, the size of {test / 'crack/000.png'}",
        "ground_truth/crack/001_mask.png": "the file is empty",
        "test/crack/002.png": "has no mask",
        "ground_truth/crack/077_mask.png": "is a mask without an image",
        "test/dent": "holds no images",
    }
    assert fatal.keys() == expected.keys()
    for place, problem in expected.items():
        assert fatal[place].problem.startswith(problem)


def test_small_images_are_fatal_unless_they_are_scaled_up(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    findings = check_images(DataConfig(root=root, image_size=None), patch_size=32)
    assert len(findings) == 7
    assert findings[0].problem.startswith("is 32x24 pixels, a patch 32x32; accepted: at least 32 on the shorter side")
    assert all(finding.fatal for finding in findings)
    assert check_images(DataConfig(root=root, image_size=32), patch_size=32) == []
    [finding] = check_images(DataConfig(root=root, image_size=31), patch_size=32)
    assert finding.fatal
    assert finding.path == root
    assert "data.image_size = 31 pixels on their shorter side, a patch has 32; accepted" in finding.problem


def test_one_training_image_is_too_few(tmp_path: Path) -> None:
    [finding] = check(make_data_set(tmp_path, train=1))
    assert finding.path == tmp_path / "train/good"
    assert finding.fatal
    assert finding.problem.startswith("holds 1 training image; accepted: at least 2")


def test_copies_are_found_across_formats_and_colors(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    write(root / "test/good/copy.bmp", np.stack([noise(2)] * 3, axis=2))
    shutil.copy(root / "test/crack/000.png", root / "test/good/other.png")
    shutil.copy(root / "train/good/000.png", root / "train/good/twin.png")
    findings = [finding for finding in check(root) if "the pixels of" in finding.problem]
    assert [(finding.path.name, finding.fatal) for finding in findings] == [
        ("twin.png", False),
        ("copy.bmp", True),
        ("other.png", False),
    ]


def test_mixed_sizes_channels_and_depths_are_notes(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    write(root / "train/good/size.png", noise(40, 30, 32))
    write(root / "train/good/color.png", noise(41, channels=3))
    write(root / "test/good/deep.png", noise(42).astype(np.uint16) * 257)
    findings = check(root)
    assert {place: finding.problem for place, finding in by_place(root, findings).items()} == {
        "train/good/size.png": "mixed sizes: 32x30 pixels, most images have 32x24 pixels",
        "train/good/color.png": "mixed channels: rgb, most images have gray",
        "test/good/deep.png": "mixed bit depths: 16 bits, most images have 8 bits",
    }
    require_clean(findings)


def test_images_that_all_differ_in_size_get_one_note(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    for index in range(8):
        write(root / f"train/good/9{index}.png", noise(50 + index, 20 + index, 40))
    [finding] = check(root)
    assert not finding.fatal
    assert finding.path == root
    assert finding.problem == "mixed sizes: 9 different ones, as 32x24 pixels (000.png), 40x20 pixels (90.png)"


def test_masks_that_mark_nothing_or_everything_are_notes(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    write(root / "ground_truth/crack/000_mask.png", np.zeros((24, 32), dtype=np.uint8))
    write(root / "ground_truth/crack/001_mask.png", np.full((24, 32), 255, dtype=np.uint8))
    findings = check(root)
    assert [(finding.problem, finding.fatal) for finding in findings] == [
        ("marks no pixel as defective", False),
        ("marks every pixel as defective", False),
    ]


def test_layouts_short_of_something_are_notes(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    shutil.rmtree(root / "ground_truth")
    shutil.rmtree(root / "test/good")
    (root / "train/bad").mkdir()
    (root / "train/good/nested").mkdir()
    findings = check(root)
    assert {place: finding.problem for place, finding in by_place(root, findings).items()} == {
        ".": "there is no ground_truth folder: pixels cannot be evaluated",
        "test": "there is no good folder: detection cannot be measured without it",
        "train/bad": "is not read; only train/good is used for training",
        "train/good/nested": "is not read; images lie directly in good",
    }
    require_clean(findings)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    seen: list[tuple[int, int]] = []
    check_images(DataConfig(root=root), patch_size=64, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 7) for done in range(1, 8)]


def test_no_data_given() -> None:
    with pytest.raises(DataError, match="no data given"):
        check_images(DataConfig(), patch_size=64)


def test_a_missing_folder_is_a_finding(tmp_path: Path) -> None:
    [finding] = check_images(DataConfig(root=tmp_path / "nowhere"), patch_size=64)
    assert finding.fatal
    assert str(finding).startswith(f"{tmp_path / 'nowhere'}: there is no such folder")


def test_require_clean_lists_every_fatal_finding_and_no_note(tmp_path: Path) -> None:
    findings = [Finding(tmp_path / str(index), f"problem {index}", fatal=index != 1) for index in range(3)]
    require_clean([findings[1]])
    with pytest.raises(DataError) as caught:
        require_clean(findings)
    assert str(caught.value) == f"2 problems in the data:\n  {tmp_path}/0: problem 0\n  {tmp_path}/2: problem 2"


def test_real_data_is_clean(magnetic_tile: Path, kolektor_sdd: Path, mvtec_leather_subset: Path) -> None:
    assert check_images(DataConfig(root=kolektor_sdd), patch_size=128) == []
    assert check_images(DataConfig(root=mvtec_leather_subset / "leather"), patch_size=128) == []
    [note] = check_images(DataConfig(root=magnetic_tile), patch_size=128)
    assert not note.fatal
    assert note.problem.startswith("mixed sizes: ")
