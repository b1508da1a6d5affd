"""Orders of an epoch: every sample once, reproducible, different for every seed and epoch, and fair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twostage.data.order import Lanes, Order, Shuffled, key_of, permute

seeds = st.integers(0, 2**63 - 1)
epochs = st.integers(0, 10**6)


@given(count=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_visits_every_place_once(count: int, key: int) -> None:
    assert sorted(permute(np.arange(count), count, key).tolist()) == list(range(count))


@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=8), seed=seeds)
def test_permutations_of_several_sizes_at_once_are_those_of_each(counts: list[int], seed: int) -> None:
    keys = np.array([key_of(seed, index) for index in range(len(counts))], dtype=np.uint64)
    owner = np.repeat(np.arange(len(counts)), counts)
    within = np.concatenate([np.arange(count) for count in counts])
    found = permute(within, np.array(counts)[owner], keys[owner])
    for index, count in enumerate(counts):
        assert sorted(found[owner == index].tolist()) == list(range(count))


@pytest.mark.parametrize("count", [2, 3, 6, 17])
def test_every_sample_comes_to_every_place_equally_often(count: int) -> None:
    epochs = 4000
    table = np.zeros((count, count))
    for epoch in range(epochs):
        table[np.arange(count), Shuffled(count, 3).samples_at(np.arange(count), epoch)] += 1
    expected = epochs / count
    assert abs(table - expected).max() < 5 * expected**0.5
    # The place after a sample's is as random as its own: no runs are kept.
    pairs = np.zeros((count, count))
    for epoch in range(epochs):
        order = Shuffled(count, 4).samples_at(np.arange(count), epoch)
        pairs[order[:-1], order[1:]] += 1
    assert pairs.diagonal().max() == 0
    expected = epochs / count
    assert abs(pairs[~np.eye(count, dtype=bool)] - expected).max() < 5 * expected**0.5


@given(seed=seeds, epoch=epochs, data=st.data())
def test_an_order_can_be_asked_for_anywhere(seed: int, epoch: int, data: st.DataObject) -> None:
    shards = np.array(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6)))
    lanes = data.draw(st.integers(1, min(8, int(shards.sum()))))
    window = data.draw(st.integers(1, 60))
    orders: list[Order] = [Shuffled(int(shards.sum()), seed), Lanes(shards, lanes, seed, window)]
    for order in orders:
        count = int(shards.sum()) // lanes * lanes
        whole = order.samples_at(np.arange(count), epoch)
        assert len(set(whole.tolist())) == count
        assert 0 <= whole.min() <= whole.max() < shards.sum()
        some = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=9)), dtype=np.int64)
        assert np.array_equal(order.samples_at(some, epoch), whole[some])


def test_seeds_and_epochs_have_other_orders() -> None:
    places = np.arange(64)
    for make in (lambda seed: Shuffled(64, seed), lambda seed: Lanes(np.full(8, 8), 4, seed, 16)):
        first = make(0).samples_at(places, 0)
        assert not np.array_equal(first, make(0).samples_at(places, 1))
        assert not np.array_equal(first, make(1).samples_at(places, 0))


def test_a_lane_reads_its_part_from_one_end_to_the_other() -> None:
    """Shards of 100 samples, 4 lanes, windows of 8 samples in each: what is read is never far from what was."""
    order = Lanes(np.full(12, 100), 4, 0, 32)
    places = np.arange(1200)
    samples = order.samples_at(places, 5)
    shards, _ = order._shards_in_a_row(5)
    in_row = np.argsort(shards)[samples // 100] * 100 + samples % 100
    for lane in range(4):
        along = in_row[places % 4 == lane]
        assert along.min() == lane * 300
        assert along.max() == lane * 300 + 299
        assert abs(along - (lane * 300 + np.arange(300))).max() < 8
    assert sorted(samples.tolist()) == list(range(1200))
