"""Training patches: exact cuts of their image, at places that depend on (seed, epoch, sample) alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from twostage.data.packing import to_unit_range
from twostage.data.patches import PatchStore


def located_image(owner: int, height: int, width: int) -> Tensor:
    """Every pixel tells its image, row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((torch.full_like(rows, owner), rows, columns)).float() / 255


SIZES = ((32, 32), (32, 33), (48, 64), (65, 31 + 33))


def make_store(seed: int = 0) -> PatchStore:
    return PatchStore([located_image(index, *size) for index, size in enumerate(SIZES)], 32, seed)


def test_an_epoch_tiles_every_image_once() -> None:
    store = make_store()
    owners = store.image_of(torch.arange(store.patches_per_epoch))
    assert owners.bincount().tolist() == [1, 2, 4, 6]


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_patches_are_exact_cuts_of_their_own_image(seed: int, epoch: int) -> None:
    store = make_store(seed)
    samples = torch.arange(store.patches_per_epoch)
    for sample, patch in zip(samples, store.patches(samples, epoch), strict=True):
        owner, top, left = (patch[:, 0, 0] * 255).round().long().tolist()
        assert owner == store.image_of(sample)
        assert torch.equal(patch, store.images[owner][:, top : top + 32, left : left + 32])


def test_every_place_comes_and_none_more_often_than_chance() -> None:
    store = PatchStore([located_image(0, 33, 34)], 32, seed=3)
    places = []
    for epoch in range(600):
        patches = store.patches(torch.arange(store.patches_per_epoch), epoch)
        places += [tuple(place) for place in (patches[:, 1:, 0, 0] * 255).round().long().tolist()]
    counts = [places.count((top, left)) for top in range(2) for left in range(3)]
    assert sum(counts) == len(places)
    expected = len(places) / 6
    assert max(abs(count - expected) for count in counts) < 5 * expected**0.5


def test_a_patch_does_not_depend_on_its_batch() -> None:
    store = make_store()
    together = store.patches(torch.arange(store.patches_per_epoch), 7)
    for order in (torch.tensor([3]), torch.tensor([5, 0, 3]), torch.arange(store.patches_per_epoch).flip(0)):
        assert torch.equal(store.patches(order, 7), together[order])


def test_seeds_and_epochs_give_other_places() -> None:
    samples = torch.arange(make_store().patches_per_epoch)
    first = make_store(0).patches(samples, 0)
    assert not torch.equal(first, make_store(0).patches(samples, 1))
    assert not torch.equal(first, make_store(1).patches(samples, 0))


@given(st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_every_epoch_visits_every_sample_once_in_an_order_of_its_own(seed: int, epoch: int) -> None:
    store = PatchStore([torch.zeros(1, 32 * 8, 32 * 8)], 32, seed)
    places = torch.arange(64)
    order = store.samples_at(places, epoch)
    assert sorted(order.tolist()) == list(range(64))
    assert torch.equal(order.flip(0), store.samples_at(places.flip(0), epoch))
    assert not torch.equal(order, store.samples_at(places, epoch + 1))


def test_bytes_are_scaled_to_the_unit_range_and_floats_kept() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(to_unit_range(levels), torch.arange(256).view(1, 16, 16) / 255)
    values = torch.rand(1, 4, 4, dtype=torch.float64)
    assert torch.equal(to_unit_range(values), values.float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_patches_are_floats_in_the_unit_range(dtype: torch.dtype) -> None:
    image = torch.full((1, 40, 40), 255 if dtype == torch.uint8 else 1.0, dtype=dtype)
    patches = PatchStore([image], 32, 0).patches(torch.tensor([0]), 0)
    assert torch.equal(patches, torch.ones(1, 1, 32, 32))
