"""What is drawn for many steps at once is what would be drawn for one."""

from dataclasses import fields

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twostage.config import DefectConfig
from twostage.data.patches import PatchStore
from twostage.defects import DefectSampler, Polygons, SourcePool
from twostage.distributed import Ranks
from twostage.upcoming import Upcoming

IMAGES = [
    torch.randint(0, 256, (1, 24, 31), dtype=torch.uint8, generator=torch.Generator().manual_seed(n)) for n in range(40)
]
STORE = PatchStore(IMAGES, 8, seed=3)  # 12 patches an image, 480 an epoch
SAMPLER = DefectSampler(DefectConfig(edge_amplitude=(1, 2)), SourcePool(IMAGES, None, 8), 8, seed=3)


def assert_same(got: Polygons, wanted: Polygons) -> None:
    for field in fields(Polygons):
        one, other = getattr(got, field.name), getattr(wanted, field.name)
        assert (one is None) == (other is None)
        if isinstance(one, Tensor):
            assert torch.equal(one, other), field.name


@settings(max_examples=30)
@given(
    batch=st.sampled_from([1, 4, 6, 12, 30]),
    ranks=st.sampled_from([Ranks(), Ranks(0, 2), Ranks(1, 2)]),
    visited=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), min_size=1, max_size=12),
)
def test_any_steps_in_any_order(batch: int, ranks: Ranks, visited: list[tuple[int, int]]) -> None:
    batch *= ranks.size
    steps = STORE.patches_per_epoch // batch
    upcoming = Upcoming(STORE, SAMPLER, batch, steps, ranks)
    for epoch, step in visited:
        step = step * steps // 16
        samples = ranks.share(STORE.samples_at(torch.arange(step * batch, (step + 1) * batch), epoch))
        assert torch.equal(upcoming.samples(epoch, step), samples)
        assert_same(upcoming.polygons(epoch, step), SAMPLER.draw(samples, STORE.image_of(samples), epoch))


def test_one_draw_serves_many_steps() -> None:
    drawn: list[int] = []

    class Counting(DefectSampler):
        def draw(self, samples: Tensor, images: Tensor, epoch: int) -> Polygons:
            drawn.append(len(samples))
            return super().draw(samples, images, epoch)

    sampler = Counting(SAMPLER.config, SAMPLER.pool, 8, seed=3)
    upcoming = Upcoming(STORE, sampler, 10, 48, Ranks())
    for step in range(40):
        upcoming.samples(0, min(step + 4, 39))  # as batches are read ahead
        upcoming.polygons(0, step)
    assert drawn == [160, 160, 160]
