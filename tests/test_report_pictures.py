"""What the pictures of the report show, and which examples are refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from report_pages import photograph
from skimage.color import rgb2lab

from twostage.errors import ConfigError, DataError, OutputError
from twostage.report import (
    Example,
    Verdict,
    heat_map,
    mask_picture,
    overlay,
    plain_picture,
    residual_picture,
    save_png,
)

CYAN, WHITE = [0, 229, 255], [255, 255, 255]


class TestPictures:
    def test_heat_grows_evenly_lighter(self) -> None:
        # CIE lightness from scikit-image is the oracle for "perceptually uniform".
        picture = heat_map(torch.linspace(0, 1, 64).unsqueeze(0), 0.0, 1.0)
        lightness = np.diff(rgb2lab(picture)[0, :, 0])
        assert lightness.min() > 0.3
        assert lightness.max() < 3

    @given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-10, 10, width=32)))
    def test_heat_never_orders_scores_the_wrong_way(self, scores: np.ndarray[Any, Any]) -> None:
        picture = heat_map(torch.from_numpy(scores), -2.0, 3.0)
        lightness = rgb2lab(picture)[..., 0].ravel()
        assert (np.diff(lightness[np.argsort(scores.ravel(), kind="stable")]) >= -1e-6).all()

    def test_heat_outside_the_range_has_its_end_colours(self) -> None:
        picture = heat_map(torch.tensor([[-9.0, 1.0, 2.0, 9.0, math.inf, -math.inf, math.nan]]), 1.0, 2.0)[0]
        low, high = picture[1].tolist(), picture[2].tolist()
        assert low != high
        assert picture.tolist() == [low, low, high, high, high, low, low]

    @pytest.mark.parametrize("channels", [1, 3])
    def test_plain_picture_keeps_every_8_bit_value(self, channels: int) -> None:
        values = torch.arange(256).repeat(channels, 1, 1)
        picture = plain_picture(values / 255)
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, values.expand(3, -1, -1).permute(1, 2, 0).numpy())

    def test_residual_runs_from_black_to_white_and_shows_faint_differences(self) -> None:
        picture = residual_picture(torch.tensor([[0.0, 0.01, 0.1, 0.5, 0.9]]))[0]
        assert (picture == picture[:, :1]).all()
        levels = picture[:, 0].tolist()
        assert levels[0] == 0
        assert levels[3] == levels[4] == 255
        assert 25 < levels[1] < levels[2] < 255

    def test_mask_is_black_and_white(self) -> None:
        assert mask_picture(torch.tensor([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]

    def test_overlay_without_heat_is_the_image_in_grey(self) -> None:
        image = photograph(3, 20, 30, seed=0)
        picture = overlay(image, torch.zeros(20, 30), 0.0, 1.0)
        oracle = np.asarray(Image.fromarray(plain_picture(image)).convert("L")).astype(int)
        assert (picture == picture[..., :1]).all()
        assert np.abs(picture[..., 0].astype(int) - oracle).max() <= 1

    def test_overlay_shows_more_colour_for_a_higher_score_and_never_hides_the_image(self) -> None:
        scores = torch.linspace(0, 1, 30).expand(20, 30)
        dark, light = (overlay(torch.full((1, 20, 30), grey), scores, 0.0, 1.0).astype(int) for grey in (0.2, 0.8))
        distance = np.abs(dark[0] - dark[0, 0]).sum(axis=1)
        assert (np.diff(distance[::5]) > 0).all()
        assert (light - dark).min() > 20

    def test_overlay_rings_the_mask_outside_and_the_found_region_inside(self) -> None:
        mask = torch.zeros(30, 40, dtype=torch.bool)
        mask[8:12, 5:15] = True
        scores = torch.zeros(30, 40)
        scores[18:26, 20:35] = 1.0
        image = torch.full((1, 30, 40), 0.5)
        picture = overlay(image, scores, 0.0, 2.0, mask=mask, threshold=0.5)
        bare = overlay(image, scores, 0.0, 2.0)
        cyan, white = ((picture == colour).all(axis=2) for colour in (CYAN, WHITE))
        ring = np.zeros((30, 40), dtype=bool)
        ring[7:13, 4:16] = True
        assert np.array_equal(cyan, ring & ~mask.numpy())
        border = (scores > 0.5).numpy()
        border[19:25, 21:34] = False
        assert np.array_equal(white, border)
        assert np.array_equal(picture[mask.numpy()], bare[mask.numpy()])

    def test_overlay_of_a_score_at_the_threshold_has_no_contour(self) -> None:
        scores = torch.full((8, 8), 0.5)
        with_line = overlay(torch.zeros(1, 8, 8), scores, 0.0, 1.0, threshold=0.5)
        assert np.array_equal(with_line, overlay(torch.zeros(1, 8, 8), scores, 0.0, 1.0))

    def test_png_holds_the_picture_exactly(self, tmp_path: Path) -> None:
        picture = heat_map(torch.rand(9, 7), 0.0, 1.0)
        save_png(tmp_path / "heat.png", picture)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "heat.png")), picture)
        assert [path.name for path in tmp_path.iterdir()] == ["heat.png"]

    def test_png_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"missing/heat\.png"):
            save_png(tmp_path / "missing" / "heat.png", heat_map(torch.rand(2, 2), 0.0, 1.0))

    @pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (0.0, math.nan), (-math.inf, 1.0)])
    def test_a_range_without_extent_is_refused(self, bounds: tuple[float, float]) -> None:
        with pytest.raises(ConfigError, match="the range of scores is"):
            heat_map(torch.zeros(2, 2), *bounds)
        with pytest.raises(ConfigError, match="the range of scores is"):
            overlay(torch.zeros(1, 2, 2), torch.zeros(2, 2), *bounds)

    def test_wrong_shapes_are_refused_by_name(self) -> None:
        with pytest.raises(DataError, match=r"score_map has shape \(1, 2, 2\)"):
            heat_map(torch.zeros(1, 2, 2), 0.0, 1.0)
        with pytest.raises(DataError, match=r"residual has shape \(0, 2\)"):
            residual_picture(torch.zeros(0, 2))
        with pytest.raises(DataError, match=r"mask has shape \(4,\)"):
            mask_picture(torch.zeros(4, dtype=torch.bool))
        with pytest.raises(DataError, match=r"image has shape \(2, 4, 4\)"):
            plain_picture(torch.zeros(2, 4, 4))
        with pytest.raises(DataError, match=r"score_map has shape \(2, 3\).*\(2, 2\)"):
            overlay(torch.zeros(1, 2, 2), torch.zeros(2, 3), 0.0, 1.0)
        with pytest.raises(DataError, match=r"mask has shape \(3, 2\).*\(2, 2\)"):
            overlay(torch.zeros(1, 2, 2), torch.zeros(2, 2), 0.0, 1.0, mask=torch.zeros(3, 2, dtype=torch.bool))


class TestExample:
    def test_everything_that_does_not_fit_is_listed_at_once(self) -> None:
        image = torch.zeros(3, 4, 5)
        with pytest.raises(DataError) as caught:
            Example("a.png", "good", image, image[:1], image[0, :2], image[0], torch.zeros(4, 4), math.nan)
        message = str(caught.value)
        assert message.startswith("a.png: ")
        for part in ("reconstruction has shape (1, 4, 5)", "residual has shape (2, 5)", "mask has shape (4, 4)"):
            assert part in message
        assert "mask is of type torch.float32" in message
        assert "score is nan" in message

    def test_an_image_of_two_channels_is_refused(self) -> None:
        image = torch.zeros(2, 4, 5)
        with pytest.raises(DataError, match=r"image has shape \(2, 4, 5\)"):
            Example("a.png", "good", image, image, image[0], image[0], None, 0.0)

    @pytest.mark.parametrize(
        ("kind", "score", "verdict"),
        [
            ("good", 0.2, Verdict.PASSED),
            ("good", 0.3, Verdict.PASSED),
            ("good", 0.4, Verdict.FALSE_ALARM),
            ("scratch", 0.3, Verdict.MISSED),
            ("scratch", 0.4, Verdict.FOUND),
        ],
    )
    def test_only_a_score_above_the_threshold_says_defective(self, kind: str, score: float, verdict: Verdict) -> None:
        assert Verdict.of(kind, score, 0.3) is verdict
        assert verdict.correct is (verdict in (Verdict.PASSED, Verdict.FOUND))
