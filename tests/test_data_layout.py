"""Finding the images of a folder in MVTec layout."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from image_files import make_data_set, noise, write

from twostage.config import DataConfig
from twostage.data import GOOD, Sample, find_samples
from twostage.errors import DataError


def found(root: Path) -> tuple[Counter[str], Counter[str]]:
    """How many images of each kind there are in train and in test."""
    images = find_samples(DataConfig(root=root))
    return Counter(sample.kind for sample in images.train), Counter(sample.kind for sample in images.test)


def problems(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        find_samples(DataConfig(root=root))
    return str(caught.value)


def test_every_image_is_found_with_its_mask(tmp_path: Path) -> None:
    root = make_data_set(tmp_path / "tiles")
    images = find_samples(DataConfig(root=root))
    assert images.name == "tiles"
    assert images.train == tuple(Sample(root / f"train/good/{index:03d}.png", GOOD) for index in range(3))
    crack = [
        Sample(root / f"test/crack/{index:03d}.png", "crack", root / f"ground_truth/crack/{index:03d}_mask.png")
        for index in range(2)
    ]
    good = [Sample(root / f"test/good/{index:03d}.png", GOOD) for index in range(2)]
    assert images.test == (*crack, *good)


def test_masks_match_by_stem_whatever_their_ending(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    truth = root / "ground_truth/crack"
    (truth / "000_mask.png").rename(truth / "000.tiff")
    (truth / "001_mask.png").rename(truth / "001_mask.BMP")
    masks = [sample.mask for sample in find_samples(DataConfig(root=root)).test if sample.kind != GOOD]
    assert masks == [truth / "000.tiff", truth / "001_mask.BMP"]


def test_hidden_and_system_files_are_passed_over(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    for folder in ("train/good", "test/crack", "test/good", "ground_truth/crack", "train", "test"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (root / folder / name).write_bytes(b"x")
    (root / "test/.cache").mkdir()
    assert found(root) == (Counter(good=3), Counter(good=2, crack=2))


def test_training_needs_no_test_folder_and_testing_no_masks(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    shutil.rmtree(root / "ground_truth")
    images = find_samples(DataConfig(root=root))
    assert len(images.test) == 4
    assert all(sample.mask is None for sample in images.test)
    shutil.rmtree(root / "test")
    assert found(root) == (Counter(good=3), Counter())


def test_no_data_given() -> None:
    with pytest.raises(DataError, match=r"no data given; accepted: data.root .* or data.manifest"):
        find_samples(DataConfig())


def test_folder_missing_or_a_file(tmp_path: Path) -> None:
    assert "nowhere: there is no such folder; expected train/good" in problems(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "file: is not a folder; expected train/good" in problems(tmp_path / "file")


def test_a_plain_folder_of_images_is_told_what_is_expected(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"{index}.png", noise(index))
    message = problems(tmp_path)
    assert (
        "there is no train/good (this folder itself holds 3 files, as 0.png: move good images to train/good)" in message
    )
    assert "expected train/good/<images of good parts>" in message
    (tmp_path / "train").mkdir()
    (tmp_path / "1.png").rename(tmp_path / "train/1.png")
    assert "(train itself holds 1 files, as 1.png: move good images to train/good)" in problems(tmp_path)


def test_a_folder_of_categories_names_them(tmp_path: Path) -> None:
    make_data_set(tmp_path / "wood")
    make_data_set(tmp_path / "carpet")
    assert "(give one category: this folder holds carpet, wood)" in problems(tmp_path)


@pytest.mark.parametrize("folder", ["train/good", "test/good", "test/crack"])
def test_empty_folders(tmp_path: Path, folder: str) -> None:
    root = make_data_set(tmp_path)
    for path in (root / folder).iterdir():
        path.unlink()
    assert f"{root / folder}: holds no images; accepted: at least one" in problems(root)


def test_a_test_folder_without_kinds(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    shutil.rmtree(root / "ground_truth")
    shutil.rmtree(root / "test")
    write(root / "test/000.png", noise(0))
    assert f"{root / 'test'}: holds no folders; expected" in problems(root)


def test_everything_about_masks_is_listed_at_once(tmp_path: Path) -> None:
    root = make_data_set(tmp_path, defective=5)
    truth = root / "ground_truth/crack"
    (truth / "000_mask.png").unlink()
    shutil.copy(truth / "001_mask.png", truth / "001.png")
    write(root / "test/crack/002.jpg", noise(9))
    write(truth / "050_mask.png", noise(0))
    write(root / "ground_truth/good/000_mask.png", noise(0))
    write(root / "ground_truth/dent/000_mask.png", noise(0))
    message = problems(root)
    test = root / "test/crack"
    expected = [
        f"{test}/000.png: has no mask; accepted: {truth}/<stem>_mask.* or <stem>.*",
        f"{test}/001.png: has 2 masks (001_mask.png, 001.png); accepted: one",
        f"{truth}/002_mask.png: is the mask of 2 images (002.jpg, 002.png); accepted: one",
        f"{truth}/050_mask.png: is a mask without an image in {test}; accepted",
        f"{root}/ground_truth/good/000_mask.png: is a mask of a good image; accepted: masks of defects only",
        f"{root}/ground_truth/dent/000_mask.png: is a mask without an image: there is no test/dent",
    ]
    for line in expected:
        assert line in message
    assert message.startswith(f"{len(expected)} problems in the data:\n")
    assert len(message.splitlines()) == len(expected) + 1


def test_a_kind_without_its_folder_of_masks(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    write(root / "test/dent/000.png", noise(1))
    assert f"{root}/test/dent/000.png: has no mask; accepted: {root}/ground_truth/dent/<stem>_mask.*" in problems(root)


def test_masks_without_a_test_folder(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    shutil.rmtree(root / "test")
    assert "ground_truth: holds masks, but there is no test folder with their images" in problems(root)


def test_a_broken_link(tmp_path: Path) -> None:
    root = make_data_set(tmp_path)
    (root / "train/good/link.png").symlink_to(root / "nowhere.png")
    assert f"{root}/train/good/link.png: is neither a file nor a folder (broken link?)" in problems(root)


def test_magnetic_tile(magnetic_tile: Path) -> None:
    defects = {"blowhole": 115, "crack": 57, "break": 85, "fray": 32}
    assert found(magnetic_tile) == (Counter(good=500), Counter(good=120, **defects))
    images = find_samples(DataConfig(root=magnetic_tile))
    for sample in images.test:
        assert (sample.mask is None) == (sample.kind == GOOD)
        if sample.mask is not None:
            assert sample.mask.name == f"{sample.path.stem}_mask.png"
            assert sample.mask.parent.name == sample.kind


def test_kolektor_sdd(kolektor_sdd: Path) -> None:
    assert found(kolektor_sdd) == (Counter(good=253), Counter(good=80, defect=50))


def test_mvtec_leather_subset(mvtec_leather_subset: Path) -> None:
    kinds = Counter(color=1, cut=2, fold=2, glue=3, poke=3, good=4)
    assert found(mvtec_leather_subset / "leather") == (Counter(good=4), kinds)
    assert "(give one category: this folder holds leather)" in problems(mvtec_leather_subset)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_data_set(tmp_path)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("twostage.data.layout.os.scandir", refuse)
    assert f"{root}/train/good: cannot be listed (Permission denied); accepted: a readable folder" in problems(root)
