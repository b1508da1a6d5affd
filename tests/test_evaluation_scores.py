"""Pixel scores in memory and in a file: what is counted, and the AuROC that comes of it, against all scores at once."""

import math
import pickle
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from evaluation_oracles import TestImage, evaluator_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from twostage.errors import OutputError
from twostage.evaluation import GOOD, Evaluator, ScoreHistogram
from twostage.evaluation.histogram import KEYS_OF_A_BIN, KeyArray, score_keys
from twostage.evaluation.ranking import pixel_aurocs
from twostage.evaluation.scores import Group, KeyCounts, PixelScores

NORMAL, DEFECTIVE = Group("hole", False), Group("hole", True)
Images = list[tuple[str, npt.NDArray[np.float32], npt.NDArray[np.bool_]]]


def filled(parts: Sequence[tuple[Group, KeyArray]], in_memory: int) -> PixelScores:
    scores = PixelScores(in_memory=in_memory)
    for group, keys in parts:
        scores.add(keys, group)
    return scores


def some_parts(seed: int) -> list[tuple[Group, KeyArray]]:
    """30,000 keys, most of them in a few bins."""
    rng = np.random.default_rng(seed)
    sizes = rng.multinomial(30_000, [1 / 12] * 12)
    groups = [NORMAL, DEFECTIVE, Group(GOOD, False)]
    return [
        (
            groups[index % 3],
            rng.choice([rng.integers(0, 1 << 32, size), rng.integers(5000, 9000, size)]).astype(np.uint32),
        )
        for index, size in enumerate(sizes)
    ]


def pixels_of(images: Images, in_memory: int) -> tuple[ScoreHistogram, PixelScores]:
    histogram, scores = ScoreHistogram(), PixelScores(in_memory=in_memory)
    for kind, image, mask in images:
        keys = score_keys(image)
        histogram.add(keys, mask)
        scores.add(keys[~mask], Group(kind, False))
        scores.add(keys[mask], Group(kind, True))
    return histogram, scores


def alone(value: Any) -> list[Any]:
    return [value]


def expected_aurocs(images: Images) -> dict[str | None, float]:
    """From all scores at once; of each kind with defective pixels, and of all."""
    found: dict[str | None, float] = {}
    for kind in {None} | {kind for kind, _, mask in images if mask.any()}:
        chosen = [(image, mask) for name, image, mask in images if kind is None or name in (kind, GOOD)]
        labels = np.concatenate([mask.ravel() for _, mask in chosen])
        if labels.any():
            values = np.concatenate([image.ravel() for image, _ in chosen])
            found[kind] = math.nan if labels.all() else float(roc_auc_score(labels, values))
    return found


@pytest.mark.parametrize("in_memory", [1 << 20, 9000, 1])
@pytest.mark.parametrize(
    ("first", "last"), [(0, (1 << 32) - 1), (5000, 8999), (6000, 6000), (0, 4999), (6100, 6100 + KEYS_OF_A_BIN)]
)
def test_keys_are_counted_in_memory_and_in_the_file(in_memory: int, first: int, last: int) -> None:
    parts = some_parts(0)
    counts = filled(parts, in_memory).sorted().count(first, last)
    assert set(counts) == {group for group, _ in parts}
    for group, found in counts.items():
        keys = np.concatenate([part for of, part in parts if of == group])
        present, number = np.unique(keys[(keys >= first) & (keys <= last)], return_counts=True)
        np.testing.assert_array_equal(found.keys, present)
        np.testing.assert_array_equal(found.counts, number)


def test_counting_forgets_nothing_that_still_waits() -> None:
    parts = some_parts(1)
    scores = filled(parts[:6], 9000)
    scores.sorted()
    for group, keys in parts[6:]:
        scores.add(keys, group)
    total = sum(int(counts.counts.sum()) for counts in scores.sorted().count(0, (1 << 32) - 1).values())
    assert total == 30_000


@pytest.mark.parametrize("in_memory", [1 << 20, 9000])
def test_merged_and_pickled_scores_are_those_of_one(in_memory: int) -> None:
    parts = some_parts(2)
    whole = filled(parts, in_memory).sorted().count(0, (1 << 32) - 1)
    merged = filled(parts[::2], in_memory)
    merged.merge(pickle.loads(pickle.dumps(filled(parts[1::2], in_memory))))
    merged.merge(PixelScores())
    found = merged.sorted().count(0, (1 << 32) - 1)
    assert set(found) == set(whole)
    for group, counts in whole.items():
        np.testing.assert_array_equal(found[group].keys, counts.keys)
        np.testing.assert_array_equal(found[group].counts, counts.counts)


def test_sums_of_counts() -> None:
    a = KeyCounts(np.array([1, 5, 9], np.uint32), np.array([2, 1, 4]))
    b = KeyCounts(np.array([0, 5], np.uint32), np.array([7, 3]))
    total = KeyCounts.sum([a, b])
    assert dict(zip(total.keys.tolist(), total.counts.tolist(), strict=True)) == {0: 7, 1: 2, 5: 4, 9: 4}
    assert len(KeyCounts.sum([]).keys) == 0


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    scores = PixelScores(in_memory=10)
    scores.add(np.arange(10, dtype=np.uint32), NORMAL)
    with pytest.raises(OutputError, match=r"nowhere.*TMPDIR"):
        scores.add(np.arange(1, dtype=np.uint32), NORMAL)


CROWDED = st.integers(0, 3000).map(lambda step: 1.0 + step * 2.0**-23)
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
TIES = st.sampled_from([-1e30, -0.0, 0.0, 1e-40, 1.0, 1.0 + 2**-20])


@st.composite
def image_sets(draw: st.DrawFn) -> Images:
    elements = draw(st.sampled_from([CROWDED, ANY, TIES]))
    images = []
    for kind in draw(st.lists(st.sampled_from([GOOD, "hole", "dent"]), min_size=1, max_size=5)):
        shape = (draw(st.integers(1, 5)), draw(st.integers(1, 6)))
        mask = np.zeros(shape, dtype=np.bool_) if kind == GOOD else draw(hnp.arrays(np.bool_, shape))
        images.append((kind, draw(hnp.arrays(np.float32, shape, elements=elements)), mask))
    return images


@given(image_sets(), st.sampled_from([1, 7, 40, 1 << 23]), st.sampled_from([3, 1000]))
def test_the_auroc_is_that_of_all_scores_at_once(images: Images, at_once: int, in_memory: int) -> None:
    histogram, scores = pixels_of(images, in_memory)
    found = pixel_aurocs(histogram, scores.sorted(), GOOD, alone, at_once=at_once)
    expected = expected_aurocs(images)
    assert set(found) == set(expected)
    for kind, value in expected.items():
        assert found[kind] == pytest.approx(value, abs=1e-12, nan_ok=True)


@given(image_sets())
def test_it_does_not_depend_on_how_many_are_compared_at_once(images: Images) -> None:
    histogram, scores = pixels_of(images, 1000)
    found = [pixel_aurocs(histogram, scores.sorted(), GOOD, alone, at_once=size) for size in (1, 5, 1 << 23)]
    assert repr(found[0]) == repr(found[1]) == repr(found[2])


def test_processes_that_share_a_set_each_get_the_figures_of_all() -> None:
    rng = np.random.default_rng(3)
    images = []
    for index in range(12):
        mask = rng.random((30, 40)) < (0.2 if index % 3 else 0)
        scores = (np.round(rng.gamma(2, 0.1, mask.shape), 3) + 0.1 * mask).astype(np.float32)
        images.append(TestImage(scores, mask, [GOOD, "hole", "dent"][index % 3], index / 12, f"{index}"))
    expected = evaluator_of(images).result()
    meeting, said, results = threading.Barrier(3, timeout=60), [None] * 3, [None] * 3

    def gather(rank: int, value: Any) -> list[Any]:
        said[rank] = pickle.loads(pickle.dumps(value))
        meeting.wait()
        values = list(said)
        meeting.wait()
        return values

    def run(rank: int) -> None:
        own: Evaluator = evaluator_of(images[rank::3])
        results[rank] = own.result(lambda value: gather(rank, value))  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [repr(result) for result in results] == [repr(expected)] * 3
