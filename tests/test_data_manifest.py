"""Data sets listed in a CSV file."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import make_data_set

from twostage.config import DataConfig
from twostage.data import GOOD, Sample, find_samples
from twostage.errors import DataError

HEADER = "path,split,kind,mask\n"
CLEAN = (
    "train/good/000.png,train,good,\n"
    "train/good/001.png,train,good,\n"
    "test/good/000.png,test,good,\n"
    "test/crack/000.png,test,crack,ground_truth/crack/000_mask.png\n"
)


def manifest(root: Path, text: str, encoding: str = "utf-8") -> DataConfig:
    make_data_set(root)
    (root / "parts.csv").write_text(text, encoding=encoding)
    return DataConfig(manifest=root / "parts.csv")


def problems(root: Path, text: str) -> list[str]:
    with pytest.raises(DataError) as caught:
        find_samples(manifest(root, text))
    lines = str(caught.value).splitlines()
    return [
        line.strip().removeprefix(f"{root / 'parts.csv'}: ") for line in lines if "problems in the data" not in line
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_become_samples(tmp_path: Path, encoding: str) -> None:
    images = find_samples(manifest(tmp_path, HEADER + CLEAN, encoding))
    assert images.name == "parts"
    assert images.train == tuple(Sample(tmp_path / f"train/good/00{index}.png", GOOD) for index in range(2))
    mask = tmp_path / "ground_truth/crack/000_mask.png"
    crack = Sample(tmp_path / "test/crack/000.png", "crack", mask)
    assert images.test == (crack, Sample(tmp_path / "test/good/000.png", GOOD))


def test_columns_in_any_order_and_absolute_paths(tmp_path: Path) -> None:
    text = f"kind,mask,path,split\ngood,,{tmp_path}/train/good/000.png,train\n\ngood,,train/good/001.png,train\n"
    images = find_samples(manifest(tmp_path, text))
    assert [sample.path.name for sample in images.train] == ["000.png", "001.png"]


def test_defects_without_any_mask_are_accepted(tmp_path: Path) -> None:
    text = HEADER + CLEAN.replace("ground_truth/crack/000_mask.png", "")
    assert all(sample.mask is None for sample in find_samples(manifest(tmp_path, text)).test)


def test_every_bad_row_is_listed_with_its_line(tmp_path: Path) -> None:
    rows = [
        "train/good/nowhere.png,train,good,",
        ",train,good,",
        "train/good/002.png,validation,good,",
        "train/good/002.png,train,crack,",
        "train/good/002.png,train,,",
        "test/good/001.png,test,good,ground_truth/crack/001_mask.png",
        "test/crack/001.png,test,../crack,",
        "test/good/../good/000.png,test,good,",
        "test/crack/001.png,test,crack,nowhere.png",
        "test/good/001.png,test",
        "test/crack/001.png,test,crack,",
    ]
    found = problems(tmp_path, HEADER + CLEAN + "\n".join(rows))
    expected = [
        f"line 6: path is 'train/good/nowhere.png': there is no file {tmp_path}/train/good/nowhere.png",
        "line 7: path is empty; accepted: an image file",
        "line 8: split is 'validation'; accepted: train, test",
        "line 9: path is 'train/good/002.png', which line 8 names already; accepted: every file once",
        "line 9: kind is 'crack' in a train row; accepted: good",
        "line 10: kind is ''; accepted: good, or the name of a defect without slashes",
        "line 11: mask is 'ground_truth/crack/001_mask.png' in a good row; accepted: empty",
        "line 12: kind is '../crack'; accepted: good, or the name of a defect without slashes",
        "line 13: path is 'test/good/../good/000.png', which line 4 names already; accepted: every file once",
        f"line 14: mask is 'nowhere.png': there is no file {tmp_path}/nowhere.png",
        "line 15: has 2 values; accepted: 4",
    ]
    assert set(expected) <= set(found)


def test_a_mask_for_one_defect_asks_for_all(tmp_path: Path) -> None:
    text = HEADER + CLEAN + "test/crack/001.png,test,crack,\n"
    assert problems(tmp_path, text) == [
        f"line 6: {tmp_path}/test/crack/001.png has no mask, others have; accepted: a mask file"
    ]


def test_a_file_named_again_and_again_is_told_by_its_first_line(tmp_path: Path) -> None:
    again = "train/good/001.png,train,good,\n./train/good/001.png,train,good,\n"
    assert problems(tmp_path, HEADER + CLEAN + again) == [
        "line 6: path is 'train/good/001.png', which line 3 names already; accepted: every file once",
        "line 7: path is './train/good/001.png', which line 3 names already; accepted: every file once",
    ]


def test_a_train_row_takes_tens_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an object of its own it takes some 700."""
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    count = 50_000
    rows = "".join(f"photographs/{number:08}.png,train,good,\n" for number in range(count))
    (tmp_path / "many.csv").write_text(HEADER + rows, encoding="utf-8")
    tracemalloc.start()
    images = find_samples(DataConfig(manifest=tmp_path / "many.csv"))
    # Python's table of strings grows by leaps when paths pass through it, and then is for all to use.
    found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, "*pathlib*")])
    tracemalloc.stop()
    assert len(images.train) == count
    assert images.train[count - 1].path == tmp_path / f"photographs/{count - 1:08}.png"
    assert sum(trace.size for trace in found.traces) / count < 50


@pytest.mark.parametrize("mask", ["ground_truth/crack/000_mask.png", "test/crack/001.png"])
def test_a_file_has_one_use(tmp_path: Path, mask: str) -> None:
    [problem] = problems(tmp_path, HEADER + CLEAN + f"test/crack/001.png,test,crack,{mask}\n")
    assert problem.startswith(f"line 6: mask is '{mask}', ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns are nothing; accepted: path, split, kind, mask, separated by commas"),
        ("path;split;kind;mask\n", "line 1: the columns are path;split;kind;mask; accepted: path, split"),
        ("path,split,kind\n", "line 1: the columns are path, split, kind; accepted"),
        ("path,split,kind,masks\n", "line 1: the columns are path, split, kind, masks; accepted"),
        (HEADER, "has no row whose split is train; accepted: at least one"),
        (HEADER + 'a,"b\n', "is not a CSV file (unexpected end of data); accepted: UTF-8 text with commas"),
    ],
)
def test_files_that_are_no_such_table(tmp_path: Path, text: str, message: str) -> None:
    found = problems(tmp_path, text)
    assert any(problem.startswith(message) for problem in found), found


def test_unreadable_manifests(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.csv: cannot be read \(No such file or directory\); accepted: a CSV"):
        find_samples(DataConfig(manifest=tmp_path / "nowhere.csv"))
    (tmp_path / "latin.csv").write_bytes(b"path,split,kind,mask\n\xe9.png,train,good,\n")
    with pytest.raises(DataError, match=r"latin.csv: is not a CSV file \(.*utf-8.*\); accepted: UTF-8 text"):
        find_samples(DataConfig(manifest=tmp_path / "latin.csv"))


@given(
    content=st.binary(max_size=80) | st.text(alphabet='path,split\n"kindmask/\0;.gote', max_size=120).map(str.encode)
)
def test_any_content_is_refused_as_data(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    for start in (b"", HEADER.encode()):
        path.write_bytes(start + content)
        with pytest.raises(DataError, match=r"any\.csv"):
            find_samples(DataConfig(manifest=path))
