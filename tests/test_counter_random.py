"""The counter-based generator: the published Philox vectors, uniform draws, and nothing shared between counters."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from twostage.counter_random import philox, uniform

ONES = 0xFFFFFFFF
PI_COUNTER = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (PI_COUNTER, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    counters = torch.tensor([counter, (1, 2, 3, 4)])
    assert tuple(philox(counters, key)[0].tolist()) == expected
    assert tuple(philox(counters.flip(0), key)[1].tolist()) == expected


@given(
    samples=st.lists(st.integers(0, 2**62), min_size=1, max_size=12, unique=True),
    seed=st.integers(0, 2**64 - 1),
    stream=st.integers(0, 100),
    epoch=st.integers(0, 2**31),
    data=st.data(),
)
def test_a_draw_depends_on_its_sample_alone(
    samples: list[int], seed: int, stream: int, epoch: int, data: st.DataObject
) -> None:
    together = uniform(torch.tensor(samples), 7, seed=seed, stream=stream, epoch=epoch)
    assert together.shape == (len(samples), 7)
    order = data.draw(st.permutations(range(len(samples))))
    shuffled = uniform(torch.tensor(samples)[order], 7, seed=seed, stream=stream, epoch=epoch)
    assert torch.equal(shuffled, together[order])
    for i, sample in enumerate(samples):
        assert torch.equal(uniform(torch.tensor([sample]), 7, seed=seed, stream=stream, epoch=epoch)[0], together[i])
    # More draws of a sample continue the fewer.
    assert torch.equal(uniform(torch.tensor(samples), 3, seed=seed, stream=stream, epoch=epoch), together[:, :3])


def test_int32_samples_draw_what_int64_samples_draw() -> None:
    wide = uniform(torch.arange(20), 5, seed=1, stream=2, epoch=3)
    assert torch.equal(uniform(torch.arange(20, dtype=torch.int32), 5, seed=1, stream=2, epoch=3), wide)


def test_no_sample_or_no_draw_is_an_empty_result() -> None:
    assert uniform(torch.arange(0), 5, seed=1, stream=2, epoch=3).shape == (0, 5)
    assert uniform(torch.arange(4), 0, seed=1, stream=2, epoch=3).shape == (4, 0)


DRAWS = {
    f"seed {seed}, stream {stream}, epoch {epoch}": (seed, stream, epoch)
    for seed, stream, epoch in [
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (0, 2, 0),
        (1, 0, 0),
        (2**32, 0, 0),
        (2**32 + 1, 0, 0),
        (2**63, 0, 0),
        (2**64 - 1, 7, 25),
    ]
}


def draws(seed: int, stream: int, epoch: int, samples: int = 4000, count: int = 6) -> Tensor:
    return uniform(torch.arange(samples), count, seed=seed, stream=stream, epoch=epoch)


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_uniform_and_uncorrelated(name: str) -> None:
    values = draws(*DRAWS[name])
    assert values.dtype == torch.float32
    assert float(values.min()) >= 0
    assert float(values.max()) < 1
    for column in values.double().numpy().T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    # Between the draws of a sample, and between neighbouring samples.
    columns = torch.cat((values[1:], values[:-1]), dim=1).double().numpy().T
    correlation = np.corrcoef(columns) - np.eye(12)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_seeds_streams_and_epochs_share_no_draws() -> None:
    """A collision of whole rows (6 draws of 24 bits) has no chance; one of keys would copy every row."""
    rows = torch.cat([draws(*key, samples=500) for key in DRAWS.values()])
    assert len(torch.unique(rows, dim=0)) == 500 * len(DRAWS)
    columns = torch.stack([draws(*key, samples=2000, count=1)[:, 0] for key in DRAWS.values()])
    correlation = np.corrcoef(columns.double().numpy()) - np.eye(len(DRAWS))
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_samples_far_apart_are_different_samples() -> None:
    """Sample numbers that agree in their low 32 bits differ in the high ones."""
    samples = torch.tensor([5, 5 + 2**32, 5 + 2**33, 5 + 2**40, 5 + 2**62])
    assert len(torch.unique(uniform(samples, 4, seed=0, stream=0, epoch=0), dim=0)) == 5


def test_every_draw_is_a_multiple_of_the_last_bit() -> None:
    """24 bits fit a float32 exactly, so 1 itself cannot come out by rounding."""
    scaled = draws(3, 1, 2) * 2**24
    assert torch.equal(scaled, scaled.round())
