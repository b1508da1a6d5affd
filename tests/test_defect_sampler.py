"""ADGA: whose defects are whose, what they look like, and that every configured range holds."""

import math

import pytest
import torch
from config_strategies import defect_configs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_fixtures import PATCH, make_sampler, noise_image

from twostage.config import DefectConfig
from twostage.defects import DefectSampler, Polygons, SourcePool

IMAGES = [noise_image(seed, PATCH + 8 * seed, PATCH) for seed in range(4)]
FIELDS = (
    "vertices",
    "vertex_count",
    "source_image",
    "source_position",
    "transform",
    "blur_sigma",
    "strength",
    "brightness",
    "contrast",
)
MANY = torch.arange(4000)


def owner_of(samples: Tensor) -> Tensor:
    return samples % len(IMAGES)


def draw(sampler: DefectSampler, samples: Tensor, epoch: int = 0) -> Polygons:
    return sampler.draw(samples, owner_of(samples), epoch)


def defects_of(polygons: Polygons, place: int) -> list[Tensor]:
    chosen = polygons.image_index == place
    return [getattr(polygons, field)[chosen] for field in FIELDS]


# ---------------------------------------------------------------- whose they are


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=12), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_a_samples_defects_do_not_depend_on_its_batch(samples: list[int], seed: int, epoch: int) -> None:
    sampler = make_sampler(DefectConfig(), IMAGES, seed)
    together = draw(sampler, torch.tensor(samples), epoch)
    for place, sample in enumerate(samples):
        alone = draw(sampler, torch.tensor([sample]), epoch)
        for given_there, given_alone in zip(defects_of(together, place), defects_of(alone, 0), strict=True):
            assert torch.equal(given_there, given_alone)


def test_a_patch_gets_the_same_picture_in_any_batch() -> None:
    sampler = make_sampler(DefectConfig(probability=1.0), IMAGES)
    patches = torch.rand(6, 1, PATCH, PATCH, generator=torch.Generator().manual_seed(0))
    samples = torch.arange(6)
    together, opacity = sampler.paste(patches, draw(sampler, samples))
    order = torch.tensor([4, 1, 2])
    some, some_opacity = sampler.paste(patches[order], draw(sampler, samples[order]))
    torch.testing.assert_close(some, together[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(some_opacity, opacity[order], rtol=0, atol=1e-6)


def test_no_two_samples_epochs_or_seeds_share_a_defect() -> None:
    config = DefectConfig(probability=1.0, max_defects=3)
    drawn = [draw(make_sampler(config, IMAGES, seed), MANY[:500], epoch) for seed in (0, 1) for epoch in (0, 1)]
    shapes = torch.cat([polygons.vertices.flatten(1) for polygons in drawn])
    assert len(shapes) > 3000
    assert len({tuple(shape) for shape in shapes.tolist()}) == len(shapes)


def test_sources_are_the_candidates_of_the_target_and_all_of_them_come() -> None:
    sampler = make_sampler(DefectConfig(probability=1.0, candidates=2), IMAGES)
    polygons = draw(sampler, MANY)
    for image in range(len(IMAGES)):
        used = polygons.source_image[owner_of(MANY)[polygons.image_index] == image]
        assert set(used.tolist()) == set(sampler.pool.nearest[image].tolist())
        assert image not in used


# ---------------------------------------------------------------- how many there are


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_share_of_defective_patches_is_the_probability(probability: float) -> None:
    polygons = draw(make_sampler(DefectConfig(probability=probability), IMAGES), MANY)
    share = len(set(polygons.image_index.tolist())) / len(MANY)
    assert abs(share - probability) <= 5 * math.sqrt(probability * (1 - probability) / len(MANY))


@pytest.mark.parametrize("most", [1, 3, 8])
def test_defective_patches_have_one_to_the_given_number_of_defects_equally_often(most: int) -> None:
    polygons = draw(make_sampler(DefectConfig(probability=1.0, max_defects=most), IMAGES), MANY)
    frequencies = polygons.image_index.bincount(minlength=len(MANY)).bincount()
    assert len(frequencies) == most + 1
    assert frequencies[0] == 0
    expected = len(MANY) / most
    assert (frequencies[1:] - expected).abs().max() <= 5 * math.sqrt(expected)


def test_normal_patches_keep_every_bit() -> None:
    sampler = make_sampler(DefectConfig(probability=0.4), IMAGES)
    patches = torch.rand(24, 1, PATCH, PATCH, generator=torch.Generator().manual_seed(0))
    polygons = draw(sampler, MANY[:24])
    pasted, opacity = sampler.paste(patches, polygons)
    defective = torch.zeros(24, dtype=torch.bool)
    defective[polygons.image_index] = True
    assert 0 < int(defective.sum()) < 24
    assert torch.equal(pasted[~defective], patches[~defective])
    assert not opacity[~defective].any()
    assert torch.equal(pasted[opacity.expand_as(pasted) == 0], patches[opacity.expand_as(pasted) == 0])


def test_without_a_defect_in_the_batch_nothing_is_touched() -> None:
    sampler = make_sampler(DefectConfig(probability=0.0), IMAGES)
    patches = torch.rand(3, 1, PATCH, PATCH)
    pasted, opacity = sampler.paste(patches, draw(sampler, MANY[:3]))
    assert torch.equal(pasted, patches)
    assert torch.equal(opacity, torch.zeros(3, 1, PATCH, PATCH))


# ---------------------------------------------------------------- what they look like


@settings(max_examples=30)
@given(defect_configs, st.integers(0, 2**63 - 1))
def test_every_draw_lies_in_its_range(config: DefectConfig, seed: int) -> None:
    polygons = draw(make_sampler(config, IMAGES, seed), MANY[:50])
    for name, bounds in (
        ("blur_sigma", config.blur_sigma),
        ("strength", config.strength),
        ("contrast", config.contrast),
        ("brightness", (-config.brightness, config.brightness)),
    ):
        assert_within(getattr(polygons, name), bounds)
    magnification = torch.linalg.det(polygons.transform[:, :, :2].double()).rsqrt()
    assert_within(magnification, config.resize)
    assert_within(polygons.source_position, (0, 1))
    assert_within(polygons.vertex_count, (3, 7))
    for vertices, count in zip(polygons.vertices, polygons.vertex_count.tolist(), strict=True):
        used = vertices[:count].double()
        diameter = float((used.unsqueeze(0) - used.unsqueeze(1)).norm(dim=2).max())
        assert diameter <= max(config.size[1] * PATCH, 2) * (1 + 1e-5)
        assert not vertices[count:].any()


def assert_within(values: Tensor, bounds: tuple[float, float]) -> None:
    slack = 1e-5 * max(abs(bounds[0]), abs(bounds[1]))
    assert bool(((values >= bounds[0] - slack) & (values <= bounds[1] + slack)).all())


def test_ranges_are_used_to_their_ends() -> None:
    config = DefectConfig(probability=1.0)
    polygons = draw(make_sampler(config, IMAGES), MANY)
    magnification = torch.linalg.det(polygons.transform[:, :, :2]).rsqrt()
    for values, bounds in (
        (polygons.blur_sigma, config.blur_sigma),
        (polygons.strength, config.strength),
        (polygons.contrast, config.contrast),
        (polygons.brightness, (-config.brightness, config.brightness)),
        (magnification, config.resize),
    ):
        reach = 0.01 * (bounds[1] - bounds[0])
        assert values.min() < bounds[0] + reach
        assert values.max() > bounds[1] - reach


def test_every_number_of_vertices_is_equally_frequent() -> None:
    counts = draw(make_sampler(DefectConfig(probability=1.0), IMAGES), MANY).vertex_count
    frequencies = counts.bincount()[3:]
    assert len(frequencies) == 5
    expected = len(counts) / 5
    assert (frequencies - expected).abs().max() <= 5 * math.sqrt(expected)


def test_elongation_makes_slender_defects() -> None:
    def slenderness(elongation: float) -> float:
        config = DefectConfig(probability=1.0, size=(0.8, 0.8), elongation=(elongation, elongation))
        polygons = draw(make_sampler(config, IMAGES), MANY[:500])
        ratios = []
        for vertices, count in zip(polygons.vertices, polygons.vertex_count.tolist(), strict=True):
            spread = torch.linalg.svdvals(vertices[:count] - vertices[:count].mean(dim=0))
            ratios.append(float(spread[0] / spread[1]))
        return torch.tensor(ratios).median().item()

    assert slenderness(6.0) > 3 * slenderness(1.0)


def crosses(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> bool:
    """Whether the segments ab and cd cross, by the signs of four triangles' areas."""

    def side(p: Tensor, q: Tensor, r: Tensor) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def test_polygons_are_simple() -> None:
    polygons = draw(make_sampler(DefectConfig(probability=1.0), IMAGES), MANY[:300])
    for vertices, count in zip(polygons.vertices.double(), polygons.vertex_count.tolist(), strict=True):
        edges = [(vertices[index], vertices[(index + 1) % count]) for index in range(count)]
        for first in range(count):
            for second in range(first + 2, count):
                if (first, second) != (0, count - 1):
                    assert not crosses(*edges[first], *edges[second])


def test_a_full_cut_out_shows_its_source_and_nothing_else_changes() -> None:
    plain = DefectConfig(
        probability=1.0,
        max_defects=1,
        size=(0.5, 0.5),
        elongation=(1, 1),
        blur_sigma=(0, 0),
        strength=(1, 1),
        brightness=0,
        contrast=(1, 1),
    )
    target, source = torch.full((1, PATCH, PATCH), 51, dtype=torch.uint8), torch.full((1, 70, 80), 204).byte()
    sampler = DefectSampler(plain, SourcePool([target], [source], 1), PATCH, 0)
    samples = torch.arange(20)
    patches = torch.full((20, 1, PATCH, PATCH), 0.2)
    pasted, opacity = sampler.paste(patches, sampler.draw(samples, torch.zeros_like(samples), 0))
    assert set(opacity.flatten().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(pasted, torch.where(opacity == 1, 0.8, 0.2))


def test_brightness_and_contrast_change_the_cut_out() -> None:
    def shown(brightness: float, contrast: float) -> Tensor:
        config = DefectConfig(
            probability=1.0, max_defects=1, size=(1, 1), elongation=(1, 1), blur_sigma=(0, 0), strength=(1, 1),
            brightness=brightness, contrast=(contrast, contrast),
        )  # fmt: skip
        sampler = DefectSampler(config, SourcePool([IMAGES[0]], [noise_image(9)], 1), PATCH, 0)
        samples = torch.arange(20)
        patches = torch.full((20, 1, PATCH, PATCH), 0.5)
        pasted, opacity = sampler.paste(patches, sampler.draw(samples, torch.zeros_like(samples), 0))
        return pasted[opacity == 1]

    assert shown(0.0, 0.0).std() < 0.01
    assert shown(0.0, 0.5).std() == pytest.approx(0.5 * float(shown(0.0, 1.0).std()), rel=0.02)
    assert shown(0.4, 0.0).std() > 0.1
    assert shown(1.0, 1.0).min() == 0
    assert shown(1.0, 1.0).max() == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_both_kinds_and_types_are_pasted(channels: int) -> None:
    images = [noise_image(0, channels=channels), noise_image(1, channels=channels).float() / 255]
    sampler = make_sampler(DefectConfig(probability=1.0), images)
    patches = torch.rand(4, channels, PATCH, PATCH)
    pasted, _ = sampler.paste(patches, sampler.draw(torch.arange(4), torch.arange(4) % 2, 0))
    assert pasted.dtype == torch.float32
    assert pasted.min() >= 0
    assert pasted.max() <= 1
    assert bool((pasted != patches).flatten(1).any(dim=1).all())
