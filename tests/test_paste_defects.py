"""``paste_defects``: which pixels a polygon covers, what is read from the source, how it is blurred and blended."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from paste_cases import IDENTITY, KITE, SQUARE, STAR, Array, Defects, Points, assert_images, defects, masks, textured
from scipy import ndimage
from similarity_cases import backend_cases
from skimage.draw import polygon as draw_polygon
from skimage.measure import points_in_poly
from tolerances import tolerance
from torch import Tensor

BACKENDS = pytest.mark.parametrize(("device", "backend"), backend_cases("paste_defects"))


def centres(height: int, width: int) -> Array:
    """(x, y) of every pixel centre, [H * W, 2]."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return np.stack((x.ravel(), y.ravel()), axis=1)


def distance_to_edges(points: Array, polygon: Points) -> Array:
    """How far each point lies from the nearest edge."""
    vertices = np.array(polygon)
    nearest = np.full(len(points), np.inf)
    for start, end in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        edge = end - start
        along = np.clip((points - start) @ edge / max(edge @ edge, 1e-300), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(points - start - along[:, None] * edge, axis=1))
    return nearest


# --- which pixels --------------------------------------------------------------------------------------------------

coordinates = st.floats(-8, 28, width=32)
precisions = st.sampled_from([torch.float64, torch.float32])
any_polygon = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=7)
lattice = st.integers(-4, 44).map(lambda value: value / 2)  # integers and half-integers: corners and pixel centres


@BACKENDS
@given(polygons=st.lists(any_polygon, min_size=1, max_size=4), dtype=precisions)
def test_pixels_inside_are_those_of_the_even_odd_rule(
    device: str, backend: str, polygons: list[Points], dtype: torch.dtype
) -> None:
    """Simple or self-crossing, inside the image or not; centres on an edge are left to the tests of ownership."""
    height, width = 17, 20
    points = centres(height, width)
    for polygon, mask in zip(polygons, masks(polygons, height, width, device, backend, dtype), strict=True):
        inside = points_in_poly(points, np.array(polygon))  # type: ignore[no-untyped-call]
        clear = distance_to_edges(points, polygon) > (1e-6 if dtype == torch.float64 else 1e-4)
        assert np.array_equal(mask.ravel()[clear], inside[clear])


@BACKENDS
@given(polygons=st.lists(any_polygon, min_size=1, max_size=3))
def test_scikit_image_draws_the_same_polygons(device: str, backend: str, polygons: list[Points]) -> None:
    """It draws the same even-odd rule, but for centres on an edge, which it counts as inside."""
    height, width = 17, 20
    points = centres(height, width)
    for polygon, mask in zip(polygons, masks(polygons, height, width, device, backend), strict=True):
        x, y = np.array(polygon).T
        drawn = np.zeros((height, width), dtype=bool)
        drawn[draw_polygon(y - 0.5, x - 0.5, (height, width))] = True  # type: ignore[no-untyped-call]
        on_edge = (distance_to_edges(points, polygon) <= 1e-6).reshape(height, width)
        assert np.array_equal(mask & ~on_edge, drawn & ~on_edge)
        assert 0 <= drawn.sum() - mask.sum() + on_edge.sum() <= 2 * on_edge.sum()


@BACKENDS
def test_a_self_crossing_polygon_leaves_its_middle_open(device: str, backend: str) -> None:
    mask = masks([STAR], 16, 16, device, backend)[0]
    assert not mask[7, 7]
    assert mask[3, 7]


@BACKENDS
@given(
    radii=st.lists(st.floats(20, 60), min_size=3, max_size=7),
    turn=st.floats(0, 6.28),
)
def test_a_large_polygon_covers_its_area(device: str, backend: str, radii: list[float], turn: float) -> None:
    angle = turn + np.arange(len(radii)) * 2 * np.pi / len(radii)
    x, y = 64 + np.array(radii) * np.cos(angle), 64 + np.array(radii) * np.sin(angle)
    mask = masks([list(zip(x.tolist(), y.tolist(), strict=True))], 128, 128, device, backend)[0]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    area = 0.5 * abs(np.sum(x * next_y - next_x * y))
    perimeter = np.hypot(next_x - x, next_y - y).sum()
    assert abs(mask.sum() - area) <= perimeter


@BACKENDS
@given(x=lattice | coordinates, y=lattice | coordinates, dtype=precisions)
def test_polygons_around_a_point_share_the_image_without_gap_or_overlap(
    device: str, backend: str, x: float, y: float, dtype: torch.dtype
) -> None:
    """Four triangles from the corners of a frame to any point within it."""
    assume(-8 < x < 28 and -8 < y < 28)
    frame: Points = [(-8.0, -8.0), (28.0, -8.0), (28.0, 28.0), (-8.0, 28.0)]
    triangles: list[Points] = [[frame[i], frame[(i + 1) % 4], (x, y)] for i in range(4)]
    assert (masks(triangles, 20, 19, device, backend, dtype).sum(axis=0) == 1).all()


@BACKENDS
@given(data=st.data(), dtype=precisions)
def test_two_polygons_beside_an_edge_cover_their_union_once(
    device: str, backend: str, data: st.DataObject, dtype: torch.dtype
) -> None:
    """A parallelogram cut along its diagonal, each half listed in its own direction and from its own start."""
    number = data.draw(st.sampled_from([lattice, coordinates]))
    corner, along, across = (np.array((data.draw(number), data.draw(number))) for _ in range(3))
    assume(abs(along[0] * across[1] - along[1] * across[0]) > 1e-3)
    corners = np.array([corner, corner + along, corner + along + across, corner + across])
    quad: Points = [(float(x), float(y)) for x, y in corners - data.draw(st.integers(0, 20))]
    first, second = [quad[0], quad[1], quad[2]], [quad[0], quad[2], quad[3]]
    if data.draw(st.booleans()):
        second = second[::-1]
    shift = data.draw(st.integers(0, 2))
    halves = masks([quad, first[shift:] + first[:shift], second], 20, 19, device, backend, dtype)
    assert np.array_equal(halves[0].astype(int), halves[1].astype(int) + halves[2].astype(int))


@BACKENDS
def test_a_polygon_through_pixel_centres_owns_its_upper_and_left_edges(device: str, backend: str) -> None:
    expected = np.zeros((7, 8), dtype=bool)
    expected[1:4, 2:6] = True
    assert np.array_equal(masks([[(2.5, 1.5), (6.5, 1.5), (6.5, 4.5), (2.5, 4.5)]], 7, 8, device, backend)[0], expected)


@BACKENDS
def test_rows_and_columns_are_not_confused(device: str, backend: str) -> None:
    expected = np.zeros((5, 9), dtype=bool)
    expected[1:3, 4:8] = True
    assert np.array_equal(masks([[(4.0, 1.0), (8.0, 1.0), (8.0, 3.0), (4.0, 3.0)]], 5, 9, device, backend)[0], expected)


@BACKENDS
@pytest.mark.parametrize(
    "polygon",
    [
        [(4.5, 4.5)] * 3,
        [(2.0, 3.0), (9.0, 6.0), (9.0, 6.0)],
        [(2.0, 3.0), (9.0, 6.0), (2.0, 3.0), (9.0, 6.0)],
        [(1.0, 2.5), (5.0, 2.5), (9.0, 2.5)],
        [(2.5, 1.0), (2.5, 9.0), (2.5, 4.0)],
        [(1.5, 1.5), (8.5, 8.5), (4.5, 4.5)],
    ],
    ids=["point", "edge", "edge twice", "level", "upright", "diagonal"],
)
def test_a_polygon_without_area_covers_nothing(device: str, backend: str, polygon: Points) -> None:
    assert not masks([polygon], 10, 10, device, backend).any()


@BACKENDS
def test_vertices_may_lie_far_outside(device: str, backend: str) -> None:
    around = [(-1e4, -1e4), (1e4, -1e4), (1e4, 1e4), (-1e4, 1e4)]
    beside = [(-50.0, -50.0), (-2.0, -50.0), (-2.0, 50.0), (-50.0, 50.0)]
    covered = masks([around, beside], 9, 12, device, backend)
    assert covered[0].all()
    assert not covered[1].any()


# --- what is read --------------------------------------------------------------------------------------------------


def rotation(degrees: float, scale: float, about: tuple[float, float], to: tuple[float, float]) -> list[list[float]]:
    """The map that turns and scales about the target point ``about``, which lands on the source point ``to``."""
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return [
        [cos, -sin, to[0] - cos * about[0] + sin * about[1]],
        [sin, cos, to[1] - sin * about[0] - cos * about[1]],
    ]


@pytest.mark.parametrize(
    ("transform", "source_size"),
    [
        pytest.param(IDENTITY, (16, 18), id="identity"),
        pytest.param(((1.0, 0.0, 3.0), (0.0, 1.0, -2.0)), (16, 18), id="whole pixels"),
        pytest.param(((1.0, 0.0, 0.25), (0.0, 1.0, 0.75)), (16, 18), id="parts of pixels"),
        pytest.param(((0.5, 0.0, 2.0), (0.0, 0.7, 1.0)), (9, 23), id="larger, from another size"),
        pytest.param(((1.9, 0.0, 1.0), (0.0, 2.3, 0.0)), (40, 31), id="smaller, from a larger source"),
        pytest.param(((-1.0, 0.0, 18.0), (0.0, 1.0, 0.0)), (16, 18), id="mirrored"),
        pytest.param(rotation(33, 1.3, (9, 8), (10, 12)), (25, 21), id="turned and resized"),
        pytest.param(((1.0, 0.0, 100.0), (0.0, 1.0, -100.0)), (16, 18), id="beyond the border"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@BACKENDS
def test_content_is_sampled_as_scipy_samples_it(
    device: str, backend: str, dtype: torch.dtype, transform: Any, source_size: tuple[int, int]
) -> None:
    target, source = torch.zeros(1, 2, 16, 18, dtype=dtype), textured(1, 2, *source_size).to(dtype)
    everywhere = [(-1.0, -1.0), (20.0, -1.0), (20.0, 20.0), (-1.0, 20.0)]
    images, _ = defects(everywhere, transform=transform).paste(target, source, device, backend)
    map_xy = np.array(transform)
    linear = map_xy[:, :2][::-1, ::-1]  # rows first
    offset = map_xy[::-1, 2] + linear @ (0.5, 0.5) - 0.5
    for got, plane in zip(images[0], source[0].double().numpy(), strict=True):
        expected = ndimage.affine_transform(plane, linear, offset, output_shape=(16, 18), order=1, mode="nearest")
        assert_images(got, expected)


@BACKENDS
def test_each_polygon_reads_its_own_source(device: str, backend: str) -> None:
    source = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    left, right = [(0.0, 0.0), (4.0, 0.0), (4.0, 8.0), (0.0, 8.0)], [(4.0, 0.0), (8.0, 0.0), (8.0, 8.0), (4.0, 8.0)]
    batch = defects(left, right, left, image=[0, 0, 1], source=[2, 0, 1])
    images, _ = batch.paste(torch.zeros(2, 1, 8, 8, dtype=torch.float64), source, device, backend)
    assert_images(images[0, 0, 0], np.repeat([0.75, 0.25], 4))
    assert_images(images[1, 0, 0], np.repeat([0.5, 0.0], 4))


@BACKENDS
def test_what_the_polygon_leaves_out_of_the_source_is_not_seen(device: str, backend: str) -> None:
    """Values outside the cut, however large or undefined, do not bleed through the blur."""
    # A bilinear sample reaches one pixel beyond the polygon.
    inside = torch.tensor(ndimage.binary_dilation(masks([KITE], 16, 16, device, backend)[0], np.ones((3, 3))))
    batch = defects(KITE, blur=1.5)
    clean = torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64)
    expected = batch.paste(clean, clean, device, backend)
    for other in (1e6, float("inf"), float("nan")):
        got = batch.paste(clean, torch.where(inside, clean, other), device, backend)
        assert torch.equal(got[0], expected[0])


# --- blur and blend ------------------------------------------------------------------------------------------------


def blurred(plane: Array, sigma: float) -> Array:
    if sigma == 0:
        return plane
    radius = int(np.ceil(3 * sigma))
    result: Array = ndimage.gaussian_filter(plane, sigma, mode="constant", radius=radius)
    return result


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sigma", [0.0, 0.2, 0.5, 1.4, 3.0])
@BACKENDS
def test_the_cut_out_and_its_mask_are_blurred_together(
    device: str, backend: str, sigma: float, dtype: torch.dtype
) -> None:
    target, source = textured(1, 3, 16, 16, seed=1).to(dtype), textured(1, 3, 16, 16, seed=2).to(dtype)
    mask = masks([KITE], 16, 16, device, backend)[0].astype(np.float64)
    images, opacity = defects(KITE, blur=sigma, strength=0.8).paste(target, source, device, backend)
    level = 0.8 * blurred(mask, sigma)
    assert opacity.shape == (1, 1, 16, 16)
    assert_images(opacity[0, 0], level, "paste opacity")
    for got, below, plane in zip(images[0], target[0].double().numpy(), source[0].double().numpy(), strict=True):
        assert_images(got, below * (1 - level) + 0.8 * blurred(plane * mask, sigma))


@BACKENDS
@pytest.mark.parametrize("sigma", [0.0, 1e-30, 1e-4])
def test_no_blur_keeps_hard_edges(device: str, backend: str, sigma: float) -> None:
    _, opacity = defects(KITE, blur=sigma).paste(textured(1, 1, 16, 16), textured(1, 1, 16, 16), device, backend)
    assert np.array_equal(opacity[0, 0].cpu().numpy(), masks([KITE], 16, 16, device, backend)[0])


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_reach_of_a_blur_is_rounded_as_its_sigma_is(device: str, backend: str, dtype: torch.dtype) -> None:
    # Three times 8 / 3 is 8 in float64 and in float32; but three times the float32 number is more in float64.
    pixel = [(16.0, 16.0), (17.0, 16.0), (17.0, 17.0), (16.0, 17.0)]
    target = torch.zeros(1, 1, 33, 33, dtype=dtype)
    _, opacity = defects(pixel, blur=8 / 3, dtype=dtype).paste(target, target, device, backend)
    seen = opacity[0, 0, 16].cpu().nonzero().flatten()
    assert seen.tolist() == list(range(8, 25))


@BACKENDS
def test_each_polygon_has_its_own_blur(device: str, backend: str) -> None:
    target, source = textured(3, 1, 16, 16, seed=1), textured(1, 1, 16, 16, seed=2)
    sigmas = [0.0, 2.5, 0.6]
    together = defects(KITE, KITE, KITE, image=[0, 1, 2], blur=sigmas).paste(target, source, device, backend)
    for i, sigma in enumerate(sigmas):
        alone = defects(KITE, blur=sigma).paste(target[i : i + 1], source, device, backend)
        assert_images(together[0][i : i + 1], alone[0])
        assert_images(together[1][i : i + 1], alone[1], "paste opacity")


@BACKENDS
def test_later_polygons_lie_on_top(device: str, backend: str) -> None:
    target, source = textured(1, 1, 16, 16, seed=1), textured(3, 1, 16, 16, seed=2)
    batch = defects(KITE, SQUARE, STAR, source=[0, 1, 2], blur=[0.7, 0.0, 1.1], strength=[1.0, 0.6, 0.9])
    images, opacity = batch.paste(target, source, device, backend)
    step, clear = target, torch.ones(1, 1, 16, 16, dtype=torch.float64, device=device)
    for i in range(3):
        step, level = batch.pick([i]).paste(step, source, device, backend)
        clear = clear * (1 - level)
    assert_images(images, step)
    assert_images(opacity, 1 - clear, "paste opacity")
    reverse, _ = batch.pick([2, 1, 0]).paste(target, source, device, backend)
    assert float((reverse - images).abs().max()) > 0.1


@st.composite
def random_batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Defects]:
    """Up to 6 polygons (empty slots among them) on 3 images of 12 x 15 pixels."""
    polygons = draw(st.lists(any_polygon | st.just([]), min_size=1, max_size=6))
    count = len(polygons)

    def each(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    batch = defects(
        *polygons,
        image=each(st.integers(0, 2)),
        source=each(st.integers(0, 1)),
        transform=rotation(draw(st.floats(0, 360)), draw(st.floats(0.3, 3)), (7, 6), (5, 4)),
        blur=each(st.just(0.0) | st.floats(0.1, 3)),
        strength=each(st.floats(0, 1)),
        dtype=torch.float32,
    )
    seed = draw(st.integers(0, 99))
    return textured(3, 1, 12, 15, seed=seed).float(), textured(2, 1, 9, 11, seed=seed + 1).float(), batch


@BACKENDS
@given(case=random_batches())
def test_images_stay_within_what_they_are_made_of(
    device: str, backend: str, case: tuple[Tensor, Tensor, Defects]
) -> None:
    """Opacity in [0, 1]; untouched pixels equal bit for bit; no pixel leaves the range of target and source."""
    target, source, batch = case
    images, opacity = batch.paste(target, source, device, backend)
    assert opacity.dtype == images.dtype == torch.float32
    assert float(opacity.min()) >= 0
    assert float(opacity.max()) <= 1
    untouched = opacity == 0
    assert torch.equal(images[untouched], target.to(device)[untouched])
    slack = tolerance("paste image", torch.float32)
    assert float(images.min()) >= min(float(target.min()), float(source.min())) - slack
    assert float(images.max()) <= max(float(target.max()), float(source.max())) + slack


@BACKENDS
def test_untouched_pixels_keep_even_a_negative_zero_and_not_a_number(device: str, backend: str) -> None:
    target = torch.full((2, 1, 16, 16), -0.0, dtype=torch.float64)
    target[:, :, 0], target[:, :, :, 0] = float("nan"), float("-inf")
    unseen = torch.full((1, 1, 16, 16), float("nan"), dtype=torch.float64)
    images, opacity = defects(SQUARE, KITE, image=[0, 1], blur=[0.4, 0.9], strength=[1.0, 0.0]).paste(
        target, unseen, device, backend
    )
    untouched = (opacity == 0).cpu()
    assert bool(untouched[1].all())
    assert torch.equal(images.cpu().view(torch.int64)[untouched], target.view(torch.int64)[untouched])


@BACKENDS
@given(case=random_batches(), data=st.data())
def test_an_image_does_not_depend_on_its_batch(
    device: str, backend: str, case: tuple[Tensor, Tensor, Defects], data: st.DataObject
) -> None:
    """Alone, in another order of images, or with the polygons of different images interleaved otherwise."""
    target, source, batch = case
    images, opacity = batch.paste(target, source, device, backend)
    for image in range(3):
        own = [i for i, owner in enumerate(batch.image_index.tolist()) if owner == image]
        alone = replace(batch.pick(own), image_index=torch.zeros(len(own), dtype=torch.int32))
        got = alone.paste(target[image : image + 1], source, device, backend)
        assert_images(got[0][0], images[image])
        assert_images(got[1][0], opacity[image], "paste opacity")
    place = data.draw(st.permutations(range(3)))  # where each image goes
    # A stable sort by new image keeps the order of each image's own polygons.
    order = sorted(range(len(batch.image_index)), key=lambda i: place[batch.image_index[i]])
    moved = batch.pick(order)
    moved = replace(moved, image_index=torch.tensor([place[i] for i in moved.image_index.tolist()]))
    back = torch.tensor(place)
    got = moved.paste(target[torch.argsort(back)], source, device, backend)
    assert_images(got[0][back], images)
    assert_images(got[1][back], opacity, "paste opacity")


@BACKENDS
def test_the_same_inputs_give_the_same_bits_and_stay_as_they_are(device: str, backend: str) -> None:
    target, source = textured(2, 3, 16, 16, seed=1), textured(2, 3, 16, 16, seed=2)
    before = target.clone(), source.clone()
    batch = defects(KITE, STAR, SQUARE, image=[1, 0, 1], source=[0, 1, 1], blur=[1.0, 0.5, 2.0])
    first, second = (batch.paste(target, source, device, backend) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(target, before[0])
    assert torch.equal(source, before[1])
