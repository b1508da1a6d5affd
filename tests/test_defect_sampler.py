"""ADGA: whose defects are whose, what they look like, and that every configured range holds."""

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from config_strategies import defect_configs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_fixtures import PATCH, make_sampler, noise_image

from twostage.config import DefectConfig
from twostage.defects import DefectSampler, Polygons, SourcePool
from twostage_kernels import BLEND_MODES

IMAGES = [noise_image(seed, PATCH + 8 * seed, PATCH) for seed in range(4)]
EVERYTHING = DefectConfig(edge_amplitude=(0, 5), blend="any")
MANY = torch.arange(4000)


def owner_of(samples: Tensor) -> Tensor:
    return samples % len(IMAGES)


def draw_slots(sampler: DefectSampler, samples: Tensor, epoch: int = 0) -> Polygons:
    return sampler.draw(samples, owner_of(samples), epoch)


def fields_of(polygons: Polygons) -> dict[str, Tensor]:
    values = {field.name: getattr(polygons, field.name) for field in dataclasses.fields(polygons)}
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Drawn:
    """The slots in use."""

    image_index: Tensor  # [P] the place in the batch
    polygons: Polygons

    def of(self, place: int) -> list[Tensor]:
        return [value[self.image_index == place] for value in fields_of(self.polygons).values()]


def draw(sampler: DefectSampler, samples: Tensor, epoch: int = 0) -> Drawn:
    slots = draw_slots(sampler, samples, epoch)
    used = slots.vertex_count > 0
    owner = torch.arange(len(samples)).repeat_interleave(len(used) // len(samples))
    chosen = {name: value[used] for name, value in fields_of(slots).items()}
    return Drawn(owner[used], dataclasses.replace(slots, **chosen))


# ---------------------------------------------------------------- whose they are


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=12), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_a_samples_defects_do_not_depend_on_its_batch(samples: list[int], seed: int, epoch: int) -> None:
    sampler = make_sampler(EVERYTHING, IMAGES, seed)
    together = draw(sampler, torch.tensor(samples), epoch)
    for place, sample in enumerate(samples):
        alone = draw(sampler, torch.tensor([sample]), epoch)
        for given_there, given_alone in zip(together.of(place), alone.of(0), strict=True):
            assert torch.equal(given_there, given_alone)


def test_a_patch_gets_the_same_picture_in_any_batch() -> None:
    sampler = make_sampler(dataclasses.replace(EVERYTHING, probability=1.0), IMAGES)
    patches = torch.rand(6, 1, PATCH, PATCH, generator=torch.Generator().manual_seed(0))
    samples = torch.arange(6)
    together, opacity = sampler.paste(patches, draw_slots(sampler, samples))
    order = torch.tensor([4, 1, 2])
    some, some_opacity = sampler.paste(patches[order], draw_slots(sampler, samples[order]))
    torch.testing.assert_close(some, together[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(some_opacity, opacity[order], rtol=0, atol=1e-6)


def test_ranks_that_share_an_epoch_draw_what_one_would() -> None:
    """Two ranks with every other sample each, in batches of another size, against one with all of them."""
    sampler = make_sampler(EVERYTHING, IMAGES)
    samples = torch.arange(24)
    alone = fields_of(draw_slots(sampler, samples))
    for rank in range(2):
        own = samples[rank::2]
        parts = [fields_of(draw_slots(sampler, batch)) for batch in own.split(5)]
        for name, value in alone.items():
            expected = value.unflatten(0, (24, -1))[rank::2].flatten(0, 1)
            assert torch.equal(torch.cat([part[name] for part in parts]), expected)


def test_drawing_reads_nothing_back_from_the_device() -> None:
    """On the meta device every attempt to look at a value raises."""
    sampler = make_sampler(EVERYTHING, IMAGES).to(torch.device("meta"))
    polygons = sampler.draw(torch.arange(6), torch.arange(6) % 4, 3)
    assert {value.device.type for value in fields_of(polygons).values()} == {"meta"}
    assert polygons.vertices.shape == (6 * EVERYTHING.max_defects, 7, 2)


def test_no_two_samples_epochs_or_seeds_share_a_defect() -> None:
    config = DefectConfig(probability=1.0, max_defects=3)
    drawn = [draw(make_sampler(config, IMAGES, seed), MANY[:500], epoch) for seed in (0, 1) for epoch in (0, 1)]
    shapes = torch.cat([batch.polygons.vertices.flatten(1) for batch in drawn])
    assert len(shapes) > 3000
    assert len({tuple(shape) for shape in shapes.tolist()}) == len(shapes)


def test_sources_are_the_candidates_of_the_target_and_all_of_them_come() -> None:
    sampler = make_sampler(DefectConfig(probability=1.0, candidates=2), IMAGES)
    drawn = draw(sampler, MANY)
    for image in range(len(IMAGES)):
        used = drawn.polygons.source_image[owner_of(MANY)[drawn.image_index] == image]
        assert set(used.tolist()) == set(sampler.pool.candidates_of(torch.tensor([image]))[0].tolist())
        assert image not in used


# ---------------------------------------------------------------- how many there are


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_share_of_defective_patches_is_the_probability(probability: float) -> None:
    drawn = draw(make_sampler(DefectConfig(probability=probability), IMAGES), MANY)
    share = len(set(drawn.image_index.tolist())) / len(MANY)
    assert abs(share - probability) <= 5 * math.sqrt(probability * (1 - probability) / len(MANY))


@pytest.mark.parametrize("most", [1, 3, 8])
def test_defective_patches_have_one_to_the_given_number_of_defects_equally_often(most: int) -> None:
    drawn = draw(make_sampler(DefectConfig(probability=1.0, max_defects=most), IMAGES), MANY)
    frequencies = drawn.image_index.bincount(minlength=len(MANY)).bincount()
    assert len(frequencies) == most + 1
    assert frequencies[0] == 0
    expected = len(MANY) / most
    assert (frequencies[1:] - expected).abs().max() <= 5 * math.sqrt(expected)


def test_normal_patches_keep_every_bit() -> None:
    sampler = make_sampler(DefectConfig(probability=0.4), IMAGES)
    patches = torch.rand(24, 1, PATCH, PATCH, generator=torch.Generator().manual_seed(0))
    pasted, opacity = sampler.paste(patches, draw_slots(sampler, MANY[:24]))
    defective = torch.zeros(24, dtype=torch.bool)
    defective[draw(sampler, MANY[:24]).image_index] = True
    assert 0 < int(defective.sum()) < 24
    assert torch.equal(pasted[~defective], patches[~defective])
    assert not opacity[~defective].any()
    assert torch.equal(pasted[opacity.expand_as(pasted) == 0], patches[opacity.expand_as(pasted) == 0])


def test_without_a_defect_in_the_batch_nothing_is_touched() -> None:
    sampler = make_sampler(DefectConfig(probability=0.0), IMAGES)
    patches = torch.rand(3, 1, PATCH, PATCH)
    pasted, opacity = sampler.paste(patches, draw_slots(sampler, MANY[:3]))
    assert torch.equal(pasted, patches)
    assert torch.equal(opacity, torch.zeros(3, 1, PATCH, PATCH))


# ---------------------------------------------------------------- what they look like


@settings(max_examples=30)
@given(defect_configs, st.integers(0, 2**63 - 1))
def test_every_draw_lies_in_its_range(config: DefectConfig, seed: int) -> None:
    polygons = draw(make_sampler(config, IMAGES, seed), MANY[:50]).polygons
    widest = max(config.size[1] * PATCH / 2 / config.elongation[0], 1.0)
    assert_within(polygons.blur_sigma, (config.blur_sigma[0], max(config.blur_sigma[1], config.blur_share[1] * widest)))
    assert_within(polygons.strength, config.strength)
    magnification = torch.linalg.det(polygons.transform[:, :, :2].double()).rsqrt()
    assert_within(magnification, config.resize)
    assert_within(polygons.vertex_count, (3, 7))
    for vertices, count in zip(polygons.vertices, polygons.vertex_count.tolist(), strict=True):
        used = vertices[:count].double()
        diameter = float((used.unsqueeze(0) - used.unsqueeze(1)).norm(dim=2).max())
        assert diameter <= max(config.size[1] * PATCH, 2) * (1 + 1e-5) + 2**-8
        assert not vertices[count:].any()
    assert (polygons.edge_seed is None) == (config.edge_amplitude[1] == 0)
    if polygons.edge_amplitude is not None and polygons.edge_grain is not None:
        assert_within(polygons.edge_amplitude, config.edge_amplitude)
        assert_within(polygons.edge_grain, config.edge_grain)


def assert_within(values: Tensor, bounds: tuple[float, float]) -> None:
    slack = 1e-5 * max(abs(bounds[0]), abs(bounds[1]))
    assert bool(((values >= bounds[0] - slack) & (values <= bounds[1] + slack)).all())


def test_ranges_are_used_to_their_ends() -> None:
    config = DefectConfig(probability=1.0, blur_share=(0, 0), edge_amplitude=(1, 5))
    polygons = draw(make_sampler(config, IMAGES), MANY).polygons
    assert polygons.edge_amplitude is not None
    assert polygons.edge_grain is not None
    magnification = torch.linalg.det(polygons.transform[:, :, :2]).rsqrt()
    for values, bounds in (
        (polygons.blur_sigma, config.blur_sigma),
        (polygons.strength, config.strength),
        (polygons.edge_amplitude, config.edge_amplitude),
        (polygons.edge_grain, config.edge_grain),
        (magnification, config.resize),
    ):
        reach = 0.01 * (bounds[1] - bounds[0])
        assert values.min() < bounds[0] + reach
        assert values.max() > bounds[1] - reach


def test_blur_grows_with_the_width_of_a_polygon_and_not_with_its_length() -> None:
    def blur(size: float, elongation: float, share: tuple[float, float]) -> Tensor:
        ellipse = DefectConfig(
            probability=1.0, size=(size, size), elongation=(elongation, elongation), blur_share=share
        )
        return draw(make_sampler(ellipse, IMAGES), MANY).polygons.blur_sigma

    alike = blur(0.5, 1, (0, 0))
    assert_within(alike, DefectConfig.blur_sigma)
    wide = 0.5 * PATCH / 2
    torch.testing.assert_close(blur(0.5, 1, (0.2, 0.2)), alike.clamp_min(0.2 * wide))
    torch.testing.assert_close(blur(0.5, 4, (0.2, 0.2)), alike.clamp_min(0.2 * wide / 4))
    assert_within(blur(0.5, 1, (0.2, 0.4)), (0.2 * wide, 0.4 * wide))


def test_any_mode_suits_the_brightness_and_another_name_is_that_mode_alone() -> None:
    sampler = make_sampler(DefectConfig(probability=1.0, blend="any", contrast=(1, 1)), IMAGES)
    polygons = draw(sampler, MANY).polygons
    assert polygons.blend_mode is not None
    darker = polygons.color_offset[:, 0] == 0
    for chosen, names in ((darker, ("normal", "multiply", "darken")), (~darker, ("normal", "screen", "lighten"))):
        expected = int(chosen.sum()) / 3
        for name in names:
            found = int((polygons.blend_mode[chosen] == BLEND_MODES.index(name)).sum())
            assert abs(found - expected) <= 5 * math.sqrt(expected)
    for number, name in enumerate(BLEND_MODES):
        modes = draw(make_sampler(DefectConfig(blend=name), IMAGES), MANY[:9]).polygons.blend_mode  # type: ignore[arg-type]
        assert (number == 0) if modes is None else set(modes.tolist()) == {number}


def test_a_cut_lies_within_its_source_where_it_can() -> None:
    """Points of the polygon, carried into the source image. Images: one larger than any cut, one that is too small."""
    sources = [noise_image(8, 300, 200), noise_image(9, 20, 400)]
    config = DefectConfig(probability=1.0, candidates=2)
    sampler = DefectSampler(config, SourcePool([IMAGES[0]], sources, 2), PATCH, 0)
    polygons = sampler.draw(MANY[:400], torch.zeros(400, dtype=torch.int64), 0)
    used = torch.arange(7) < polygons.vertex_count.unsqueeze(1)
    points = (polygons.transform[:, None, :, :2] @ polygons.vertices.unsqueeze(3)).squeeze(3)
    points = points + polygons.transform[:, None, :, 2]
    size = sampler.pool.layout[polygons.source_image][:, None, 1:].flip(2)
    within = ((points >= 0) & (points <= size)).all(dim=2) | ~used
    from_large = polygons.source_image == 0
    assert 0 < int(from_large.sum()) < len(from_large)
    assert bool(within[from_large].all())
    assert bool((within.any(dim=1) | (polygons.vertex_count == 0)).all())
    middle = points[from_large & (polygons.vertex_count > 0), 0]
    spread = middle.amax(dim=0) - middle.amin(dim=0)
    assert bool((spread > 0.8 * torch.tensor([200, 300])).all())


def test_every_number_of_vertices_is_equally_frequent() -> None:
    counts = draw(make_sampler(DefectConfig(probability=1.0), IMAGES), MANY).polygons.vertex_count
    frequencies = counts.bincount()[3:]
    assert len(frequencies) == 5
    expected = len(counts) / 5
    assert (frequencies - expected).abs().max() <= 5 * math.sqrt(expected)


def test_elongation_makes_slender_defects() -> None:
    def slenderness(elongation: float) -> float:
        config = DefectConfig(probability=1.0, size=(0.8, 0.8), elongation=(elongation, elongation))
        polygons = draw(make_sampler(config, IMAGES), MANY[:500]).polygons
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
    polygons = draw(make_sampler(DefectConfig(probability=1.0), IMAGES), MANY[:300]).polygons
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
        blur_share=(0, 0),
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


def shown(source: Tensor, brightness: float, contrast: float) -> Tensor:
    """The pixels of 40 hard-edged cut-outs."""
    config = DefectConfig(
        probability=1.0, max_defects=1, size=(1, 1), elongation=(1, 1), blur_sigma=(0, 0), blur_share=(0, 0),
        strength=(1, 1), brightness=brightness, contrast=(contrast, contrast),
    )  # fmt: skip
    sampler = DefectSampler(config, SourcePool([IMAGES[0]], [source], 1), PATCH, 0)
    samples = torch.arange(40)
    patches = torch.full((40, 1, PATCH, PATCH), 0.5)
    pasted, opacity = sampler.paste(patches, sampler.draw(samples, torch.zeros_like(samples), 0))
    return pasted[opacity == 1]


def test_contrast_is_changed_about_the_mean_around_the_cut() -> None:
    noise = noise_image(9)
    own = float(shown(noise, 0.0, 1.0).std())
    assert shown(noise, 0.0, 0.0).std() < 0.2 * own  # the means of cells differ a little
    assert shown(noise, 0.0, 0.5).std() == pytest.approx(0.5 * own, rel=0.05)
    halves = torch.cat((torch.full((1, 200, 200), 40), torch.full((1, 200, 200), 200)), dim=1).byte()
    values = shown(halves, 0.0, 0.0)
    middle = (values - 40 / 255).abs() < 0.01
    assert bool((middle | ((values - 200 / 255).abs() < 0.01)).float().mean() > 0.7)


def test_brightness_moves_the_cut_out_towards_white_or_black() -> None:
    grey = torch.full((1, 100, 100), 102, dtype=torch.uint8)  # 0.4
    values = shown(grey, 0.5, 1.0)
    assert 0.2 <= values.min() < 0.23
    assert 0.67 < values.max() <= 0.7
    torch.testing.assert_close(shown(grey, 0.0, 1.0), torch.tensor(0.4).expand_as(values), rtol=0, atol=1e-6)


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
