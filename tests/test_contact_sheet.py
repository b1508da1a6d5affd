"""The contact sheet shows what training sees."""

import pytest
import torch
from torch import Tensor

from twostage.config import DefectConfig
from twostage.data.patches import PatchStore
from twostage.defects import DefectSampler, SourcePool
from twostage.defects.contact_sheet import contact_sheet

PATCH, GAP, CAPTION = 64, 4, 18


def _parts(probability: float, channels: int = 1) -> tuple[PatchStore, DefectSampler]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(channels, 96, 96, generator=generator) * 0.3 + 0.1 * index for index in range(4)]
    config = DefectConfig(probability=probability, candidates=2)
    return PatchStore(images, PATCH, 7), DefectSampler(config, SourcePool(images, None, 2), PATCH, 7)


def _cell(sheet: Tensor, row: int, column: int) -> Tensor:
    top, left = CAPTION + row * (PATCH + GAP), column * (PATCH + GAP)
    return sheet[:, top : top + PATCH, left : left + PATCH]


def test_its_rows_are_the_first_patches_of_the_epoch_with_the_defects_of_training() -> None:
    store, sampler = _parts(probability=0.75)
    sheet = contact_sheet(store, sampler, samples=5, epoch=3)
    samples = store.samples_at(torch.arange(5), 3)
    normal = store.patches(samples, 3)
    defective, opacity = sampler.paste(normal, sampler.draw(samples, store.image_of(samples), 3))
    for row in range(5):
        for column, part in enumerate((normal, defective, opacity)):
            torch.testing.assert_close(_cell(sheet, row, column), part[row].expand(3, -1, -1), rtol=0, atol=0)


def test_samples_left_normal_have_no_opacity() -> None:
    sheet = contact_sheet(*_parts(probability=0.0), samples=2, epoch=0)
    for row in range(2):
        assert torch.equal(_cell(sheet, row, 0), _cell(sheet, row, 1))
        assert not _cell(sheet, row, 2).any()


def test_rows_past_the_eighth_stand_beside_the_first() -> None:
    nine = contact_sheet(*_parts(probability=1.0, channels=3), samples=9, epoch=0)
    eight = contact_sheet(*_parts(probability=1.0, channels=3), samples=8, epoch=0)
    assert nine.shape[1] == eight.shape[1]
    torch.testing.assert_close(nine[:, CAPTION:, : eight.shape[2]], eight[:, CAPTION:])
    assert nine.shape[2] > 2 * eight.shape[2]
    assert float(nine.min()) >= 0
    assert float(nine.max()) <= 1


def test_captions_stand_over_every_column() -> None:
    sheet = contact_sheet(*_parts(probability=1.0), samples=1, epoch=0)
    for column in range(3):
        left = column * (PATCH + GAP)
        assert float(sheet[:, :CAPTION, left : left + PATCH].min()) < 0.2, "dark letters"


def test_it_draws_no_more_samples_than_the_epoch_has() -> None:
    store, sampler = _parts(probability=1.0)
    everything = contact_sheet(store, sampler, samples=store.patches_per_epoch, epoch=0)
    assert contact_sheet(store, sampler, samples=1000, epoch=0).shape == everything.shape


def test_fewer_than_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="samples is 0; accepted: at least 1"):
        contact_sheet(*_parts(probability=1.0), samples=0, epoch=0)
