"""Holding out validation images."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twostage.data import GOOD, Sample, split_validation
from twostage.errors import ConfigError, DataError

names = st.lists(st.text("abcxyz0189", min_size=1, max_size=6), min_size=2, max_size=60, unique=True)


def samples(stems: list[str], folder: str = "train") -> list[Sample]:
    return [Sample(Path(folder, f"{stem}.png"), GOOD) for stem in stems]


@given(stems=names, fraction=st.floats(0.001, 0.999), seed=st.integers(0, 2**31))
def test_the_split_is_complete_disjoint_and_of_the_size_asked_for(stems: list[str], fraction: float, seed: int) -> None:
    given_samples = samples(stems)
    train, validation = split_validation(given_samples, fraction, seed)
    assert set(train) | set(validation) == set(given_samples)
    assert len(train) + len(validation) == len(given_samples)
    assert train
    assert validation
    wanted = min(max(len(stems) * fraction, 1), len(stems) - 1)
    assert abs(len(validation) - wanted) <= 0.5
    assert [sample for sample in given_samples if sample in train] == list(train)


@given(stems=names, seed=st.integers(0, 9), data=st.data())
def test_order_and_folder_do_not_matter(stems: list[str], seed: int, data: st.DataObject) -> None:
    _, validation = split_validation(samples(stems), 0.3, seed)
    shuffled = data.draw(st.permutations(stems))
    _, again = split_validation(samples(shuffled, "elsewhere/train"), 0.3, seed)
    assert {sample.path.name for sample in validation} == {sample.path.name for sample in again}


@given(stems=names, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 9))
def test_one_more_file_moves_at_most_one_other(stems: list[str], fraction: float, seed: int) -> None:
    _, before = split_validation(samples(stems), fraction, seed)
    _, after = split_validation(samples([*stems, "new"]), fraction, seed)
    moved = {sample for sample in set(before) ^ set(after) if sample.path.stem != "new"}
    assert len(moved) <= 1


def test_the_seed_changes_the_split_and_names_alone_do_not_bias_it() -> None:
    stems = [f"{index:03d}" for index in range(200)]
    chosen = [{sample.path.stem for sample in split_validation(samples(stems), 0.1, seed)[1]} for seed in range(50)]
    assert len({frozenset(stems) for stems in chosen}) == 50
    counts = [sum(stem in stems for stems in chosen) for stem in stems]
    # Each of 200 names is drawn 5 times in 50 on average; 17 would be an accident of one in a hundred thousand names.
    assert max(counts) < 17


def test_equal_names_in_different_folders_are_told_apart() -> None:
    twins = [Sample(Path(folder, "000.png"), GOOD) for folder in ("a", "b", "c", "d")]
    train, validation = split_validation(twins, 0.5, 0)
    assert (len(train), len(validation)) == (2, 2)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_refused_fractions(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"data.validation_fraction is .*; accepted: between 0 and 1"):
        split_validation(samples(["a", "b", "c"]), fraction, 0)


@pytest.mark.parametrize("stems", [[], ["a"]])
def test_too_few_samples(stems: list[str]) -> None:
    with pytest.raises(DataError, match=f"{len(stems)} training images; accepted: at least 2"):
        split_validation(samples(stems), 0.1, 0)
