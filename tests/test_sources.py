"""The pool that defects are cut from: who is near to whom, and folders of images."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import MAX_PIXELS, noise, write
from torch import Tensor

from twostage.config import DataConfig
from twostage.data.packing import into_one_piece
from twostage.defects import SourcePool, appearance
from twostage.defects.appearance import describe, rank
from twostage.defects.pools import most_sources
from twostage.defects.sources import load_sources
from twostage.errors import DataError

CONFIG = DataConfig(max_pixels=MAX_PIXELS)


def flat(level: int, channels: int = 1) -> Tensor:
    return torch.full((channels, 16, 16), level, dtype=torch.uint8)


def test_sources_are_ranked_by_colour() -> None:
    levels = (0, 50, 60, 200, 255)
    pool = SourcePool([flat(level) for level in levels], None, 4)
    nearest_levels = [[levels[index] for index in row] for row in pool.nearest.tolist()]
    assert nearest_levels == [
        [50, 60, 200, 255],
        [60, 0, 200, 255],
        [50, 0, 200, 255],
        [255, 60, 50, 0],
        [200, 60, 50, 0],
    ]


def test_of_one_colour_the_like_texture_is_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    stripes = torch.tensor([100, 156], dtype=torch.uint8).repeat(8)
    across, down = stripes.expand(1, 16, 16), stripes.view(-1, 1).expand(1, 16, 16)
    speckled = torch.where(torch.rand(1, 16, 16, generator=generator) < 0.5, 100, 156).byte()
    pool = SourcePool([across, down], [flat(128), down, speckled, across], 1)
    assert pool.nearest.tolist() == [[3], [1]]


def test_a_description_tells_colour_contrast_and_direction() -> None:
    ramp = (torch.arange(11) / 10).expand(1, 5, 11)
    deviation = float(ramp.std())
    torch.testing.assert_close(describe(ramp), torch.tensor([0.5, deviation, 0.0, 0.1]))
    assert describe(flat(255, channels=3)).tolist() == [1.0] * 3 + [0.0] * 9


@pytest.mark.parametrize("count", [2, 7, 40])
def test_no_image_is_its_own_source_even_among_equals(count: int) -> None:
    pool = SourcePool([flat(90) for _ in range(count)], None, 1000)
    assert pool.nearest.shape == (count, count - 1)
    for index, row in enumerate(pool.nearest.tolist()):
        assert sorted(row) == [other for other in range(count) if other != index]


def test_as_many_candidates_are_kept_as_asked_for() -> None:
    assert SourcePool([flat(level) for level in range(9)], None, 3).nearest.shape == (9, 3)
    assert SourcePool([flat(1)], [flat(2), flat(3)], 5).nearest.shape == (1, 2)


def test_ranking_in_parts_is_ranking_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    targets, others = (torch.rand(count, 4, generator=generator, dtype=torch.float64) for count in (23, 31))
    spread = torch.cat((targets, others)).std(dim=0)
    expected = ((targets[:, None] - others) / spread).square().sum(dim=2).argsort(dim=1)[:, :6]
    apart = ((others[:, None] - others) / others.std(dim=0)).square().sum(dim=2).fill_diagonal_(9e9).argsort(dim=1)
    for at_once in (1, 31 * 5, 1 << 20):
        monkeypatch.setattr(appearance, "_DISTANCES_AT_ONCE", at_once)
        assert torch.equal(rank(targets, others, 6, leave_out_own=False), expected)
        assert torch.equal(rank(others, others, 4, leave_out_own=True), apart[:, :4])


def test_a_large_pool_is_ranked_in_little_memory() -> None:
    """4,000 targets and 40,000 sources: all distances at once would take 640 MB."""
    features = torch.rand(40_000, 4, generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    nearest = rank(features[:4000], features, 16, leave_out_own=False)
    assert nearest[:, 0].tolist() == list(range(4000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize("one_piece", [False, True])
def test_a_pool_holds_every_pixel_of_images_of_any_size(one_piece: bool) -> None:
    images = [torch.randint(0, 256, (3, 9 + seed, 20 - seed), dtype=torch.uint8) for seed in range(5)]
    expected = [image.clone() for image in images]
    if one_piece:
        images = into_one_piece(images)
    pool = SourcePool(images, None, 2)
    assert pool.values.dtype == torch.uint8
    assert (pool.values.data_ptr() == images[0].data_ptr()) == one_piece
    for image, mean, (offset, height, width) in zip(expected, pool.means, pool.layout.tolist(), strict=True):
        assert torch.equal(pool.values[offset : offset + image.numel()].view(3, height, width), image)
        torch.testing.assert_close(mean.mean(), image.float().mean() / 255, rtol=0.05, atol=0)


def test_part_of_one_piece_is_a_pool_too() -> None:
    images = into_one_piece([flat(10 * level) for level in range(1, 7)])
    pool = SourcePool(images[4:], images[1:3], 2)
    for (offset, height, width), level in zip(pool.layout.tolist(), (20, 30), strict=True):
        assert bool((pool.values[offset : offset + height * width] == level).all())


def test_where_one_image_is_not_of_bytes_all_become_numbers() -> None:
    mixed = [flat(51), torch.full((1, 16, 16), 0.5, dtype=torch.float64)]
    expected = [0.2, 0.5]
    for images in (mixed, into_one_piece([*mixed])):
        pool = SourcePool(images, None, 1)
        assert pool.values.dtype == torch.float32
        for (offset, height, width), level in zip(pool.layout.tolist(), expected, strict=True):
            torch.testing.assert_close(pool.values[offset : offset + height * width], torch.full((256,), level))


def test_putting_images_into_one_piece_lets_go_of_the_old_ones() -> None:
    images = [flat(level) for level in range(4)]
    placed = into_one_piece(images)
    assert not images
    assert [int(image[0, 0, 0]) for image in placed] == [0, 1, 2, 3]
    assert into_one_piece([]) == []


def test_one_image_alone_has_no_source() -> None:
    with pytest.raises(DataError, match=r"holds 1 image\(s\); accepted: at least 2"):
        SourcePool([flat(1)], None, 1)


def test_an_empty_list_of_sources_is_refused() -> None:
    with pytest.raises(DataError, match=r"holds 0 image\(s\); accepted: at least 1"):
        SourcePool([flat(1)], [], 1)


def test_a_folder_is_read_with_its_subfolders_in_the_order_of_paths(tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "a/z.png", "a/deep/y.jpg", ".hidden.png", ".cache/c.png")):
        write(tmp_path / name, np.full((20, 30), 60 * number, dtype=np.uint8))
    images = load_sources(tmp_path, CONFIG, "gray", smallest=16)
    assert [tuple(image.shape) for image in images] == [(1, 20, 30)] * 3
    assert [round(float(image.float().mean())) for image in images] == [120, 60, 0]


def test_of_very_many_sources_some_are_taken_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        write(tmp_path / f"{number}.png", np.full((20, 30), 20 * number, dtype=np.uint8))
    (tmp_path / "Thumbs.db").write_text("no image")
    monkeypatch.setattr("twostage.defects.sources.most_sources", lambda size: 4 if size == 20 * 30 * 3 else 1)
    notes: list[str] = []
    images = load_sources(tmp_path, CONFIG, "rgb", smallest=16, note=notes.append)
    assert [int(image[0, 0, 0]) for image in images] == [0, 40, 100, 140]
    assert notes == [f"defects are cut from 4 of the 10 images in {tmp_path}, evenly spread"]


@pytest.mark.parametrize(("size", "most"), [(0, 4096), (1 << 10, 4096), (1 << 20, 1024), (1 << 30, 64)])
def test_a_pool_takes_what_a_gibibyte_holds(size: int, most: int) -> None:
    assert most_sources(size) == most


def test_sources_take_the_targets_colour(tmp_path: Path) -> None:
    write(tmp_path / "colour.png", noise(0, channels=3))
    write(tmp_path / "gray.png", noise(1))
    assert [len(image) for image in load_sources(tmp_path, CONFIG, "gray", smallest=8)] == [1, 1]
    assert [len(image) for image in load_sources(tmp_path, CONFIG, "rgb", smallest=8)] == [3, 3]


def test_small_sources_are_enlarged_and_others_left(tmp_path: Path) -> None:
    write(tmp_path / "a.png", noise(0, height=20, width=30))
    write(tmp_path / "b.png", noise(1, height=64, width=50))
    small, large = load_sources(tmp_path, CONFIG, "gray", smallest=40)
    assert small.shape == (1, 40, 60)
    assert large.shape == (1, 64, 50)


@pytest.mark.parametrize(("name", "problem"), [("missing", "is no folder"), ("empty", "holds no file")])
def test_a_folder_without_files_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=rf"defects\.sources .*{name} {problem}; accepted: a folder of images"):
        load_sources(tmp_path / name, CONFIG, "gray", smallest=16)


def test_every_unusable_file_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "good.png", noise(0))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:100])
    with pytest.raises(DataError) as raised:
        load_sources(tmp_path, CONFIG, "gray", smallest=16)
    assert "notes.txt" in str(raised.value)
    assert "cut.png" in str(raised.value)
    assert "good.png" not in str(raised.value)
