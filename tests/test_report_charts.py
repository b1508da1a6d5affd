"""The charts of the report: nothing lost, nothing outside, gaps where values are missing."""

import math
import re

from hypothesis import given
from hypothesis import strategies as st
from report_pages import history

from twostage.report.figures import roc_chart, score_chart, training_chart
from twostage.report.svg import across


class TestCharts:
    def test_roc_curve_goes_from_corner_to_corner(self) -> None:
        curve = {"false_positive_rate": [0.0, 0.5, 1.0], "true_positive_rate": [0.0, 0.9, 1.0]}
        chart = roc_chart({"overall": {"pixel_auroc": 0.7}, "pixel_roc": curve})
        lines = dict(re.findall(r'<polyline class="([^"]*)" points="([^"]*)"', chart))
        curve_ends, chance_ends = (lines[style].split() for style in ("line series-1", "line chance"))
        assert (curve_ends[0], curve_ends[-1]) == (chance_ends[0], chance_ends[-1])
        assert "series-2" not in chart

    @given(
        st.lists(st.tuples(st.sampled_from(["good", "dent", "hole"]), st.floats(-1e6, 1e6)), max_size=30),
        st.floats(-1e6, 1e6),
    )
    def test_every_score_is_in_one_bar_and_on_the_right_side(
        self, scores: list[tuple[str, float]], threshold: float
    ) -> None:
        chart = score_chart([{"kind": kind, "score": score} for kind, score in scores], threshold)
        for group, expected in (
            ("good", sum(kind == "good" for kind, _ in scores)),
            ("defective", sum(kind != "good" for kind, _ in scores)),
        ):
            assert sum(int(count) for count in re.findall(rf"<title>(\d+) {group},", chart)) == expected
        assert ("threshold" in chart) is bool(scores)
        inside = [float(x) for x in re.findall(r'<rect [^>]* x="([^"]*)"', chart)]
        assert all(50 <= x <= 390 for x in inside)

    def test_training_breaks_its_lines_between_stages_and_where_a_value_is_missing(self) -> None:
        rows = history(20)
        rows[3]["loss"] = None
        rows[4]["loss"] = math.nan
        chart = training_chart(rows)
        losses = re.findall(r'<polyline class="line loss" points="([^"]*)"', chart)
        assert [len(points.split()) for points in losses] == [3, 5, 10]
        lpips = re.findall(r'<polyline class="line series-2" points="([^"]*)"', chart)
        assert [len(points.split()) for points in lpips] == [10]
        assert chart.count("stage 2") == 1
        assert "nan" not in chart

    def test_a_long_history_is_thinned_but_keeps_its_ends(self) -> None:
        rows = [{"step": step, "stage": 0, "epoch": 0, "sigma": 1.0, "loss": 1.0} for step in range(5000)]
        (points,) = re.findall(r'<polyline class="line loss" points="([^"]*)"', training_chart(rows))
        places = points.split()
        assert 300 < len(places) <= 601
        assert places[0].startswith("52.0,")
        assert places[-1].startswith("388.0,")

    def test_a_single_row_is_a_dot(self) -> None:
        chart = training_chart([{"step": 0, "stage": 0, "epoch": 0, "sigma": 0.5, "loss": 0.4}])
        assert 'class="line loss dot"' in chart

    @given(st.floats(-1e4, 1e4), st.floats(1e-6, 1e9))
    def test_marks_on_an_axis_are_few_and_inside(self, low: float, extent: float) -> None:
        scale = across(low, low + extent)
        ticks = scale.ticks()
        assert 2 <= len(ticks) <= 6
        assert all(51.9 <= scale(value) <= 388.1 for value in ticks)

    @given(st.floats(1e-9, 1e3), st.floats(31, 1e9))
    def test_marks_on_a_logarithmic_axis_are_few_and_inside(self, low: float, ratio: float) -> None:
        scale = across(low, low * ratio, logarithmic=True)
        ticks = scale.ticks()
        assert 1 <= len(ticks) <= 9
        assert all(51 <= scale(value) <= 389 for value in ticks)
