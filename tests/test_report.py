"""The report page: whole, safe, and true to the figures it was given."""

import base64
import gc
import hashlib
import math
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_pages import THRESHOLD, Page, builder, evaluated, example, history, page_of, written

from twostage.errors import ConfigError, OutputError
from twostage.report import (
    Example,
    overlay,
    plain_picture,
    residual_picture,
)
from twostage.report.markup import text
from twostage.report.tables import count_images, metrics_table

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a'b&amp;<b>",
    "caf\udce9.png",
    "gpj.\u202eexe",
    "nul\x00\x1b[31m",
    "</pre></details></style><svg onload=alert(1)>",
    "url(http:evil) {bar} %s",
]


class TestPage:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_every_picture_is_inside_and_as_large_as_stated(self, tmp_path: Path, channels: int) -> None:
        examples = [example(kind=kind, channels=channels, size=(90, 60)) for kind in ("good", "hole", "scratch")]
        report = builder(max_side=48)
        for item in examples:
            report.add(item)
        pictures = written(report, tmp_path).pictures()
        assert len(pictures) == 15
        for attributes, picture in pictures:
            assert picture.size == (32, 48)
            assert (attributes["width"], attributes["height"]) == ("32", "48")
            assert attributes["alt"]
            assert attributes["loading"] == "lazy"

    def test_pictures_show_what_their_captions_say(self, tmp_path: Path) -> None:
        item = example(channels=3)
        shown = {str(tag["alt"]).split(":")[0]: picture for tag, picture in page_of([item], tmp_path).pictures()}
        assert list(shown) == ["input", "reconstruction", "residual", "mask", "score"]
        assert item.mask is not None
        assert np.array_equal(np.asarray(shown["mask"]), item.mask.numpy())
        expected = {
            "input": plain_picture(item.image),
            "reconstruction": plain_picture(item.reconstruction),
            "residual": residual_picture(item.residual),
            "score": overlay(item.image, item.score_map, 0.0, 1.0, mask=item.mask, threshold=THRESHOLD),
        }
        for name, picture in expected.items():
            error = np.asarray(shown[name].convert("RGB")).astype(float) - picture
            assert np.abs(error).mean() < 8, name

    def test_a_defect_of_one_pixel_survives_shrinking(self, tmp_path: Path) -> None:
        image = torch.full((1, 400, 300), 0.5)
        mask = torch.zeros(400, 300, dtype=torch.bool)
        mask[201, 77] = True
        report = builder(max_side=40)
        report.add(Example("a", "hole", image, image, image[0], mask.float(), mask, 1.0))
        shown = {
            str(tag["alt"]).split(":")[0]: np.asarray(found) for tag, found in written(report, tmp_path).pictures()
        }
        assert shown["mask"].sum() == 1
        y, x = np.argwhere(shown["mask"])[0]
        assert (y, x) == (20, 7)
        assert (shown["score"][y, x] > 200).all()

    def test_nothing_is_loaded_from_elsewhere(self, tmp_path: Path) -> None:
        page = page_of([example(), example(kind="good")], tmp_path)
        assert not re.search(r"(https?:)?//\w", re.sub(r"data:image/[^\"]*", "", page.source))
        for tag, attributes in page.tags:
            assert tag not in ("link", "iframe", "object", "embed", "base")
            for name in ("src", "href", "srcset", "data", "action"):
                assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
        assert not re.search(r"@import|url\(", page.raw["style"])

    def test_the_policy_allows_this_style_and_script_and_nothing_else(self, tmp_path: Path) -> None:
        page = page_of([example()], tmp_path)
        policies = [tag["content"] for tag in page.named("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
        hashes = {
            name: base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            for name, content in page.raw.items()
        }
        expected = "default-src 'none'; img-src data:; " + "; ".join(
            f"{name}-src 'sha256-{hashes[name]}'" for name in ("style", "script")
        )
        assert policies == [expected]
        assert len(page.named("style")) == len(page.named("script")) == 1
        assert not any("style" in attributes for _, attributes in page.tags)

    @pytest.mark.parametrize("nasty", NASTY)
    def test_text_from_outside_stays_text(self, tmp_path: Path, nasty: str) -> None:
        items = [example(name=nasty, kind=nasty), example(kind="good", score=0.1)]
        evaluation = evaluated(items)
        rows = [{**row, nasty: 0.5} for row in history()]
        report = builder(title=nasty, map_name=nasty)
        plain = builder()
        for item, harmless in zip(items, [example(), example(kind="good", score=0.1)], strict=True):
            report.add(item)
            plain.add(harmless)
        page = written(
            report,
            tmp_path,
            evaluation=evaluation,
            history=rows,
            config_text=nasty,
            versions={nasty: nasty},
            notes=[nasty],
        )
        harmless_rows = [{**row, "term": 0.5} for row in history()]
        reference = written(
            plain,
            tmp_path,
            evaluation=evaluated([example(), example(kind="good", score=0.1)]),
            history=harmless_rows,
            config_text="a",
            versions={"b": "c"},
            notes=["d"],
        )
        assert [tag for tag, _ in page.tags] == [tag for tag, _ in reference.tags]
        assert [sorted(found) for _, found in page.tags] == [sorted(found) for _, found in reference.tags]
        visible = re.sub(r"[\x00\x1b\u202e\udce9]", "\ufffd", nasty)
        # title, heading, note, table, map name, legend, kind, name, configuration, version twice
        assert page.text.count(visible) == 11

    def test_figures_are_those_of_the_evaluation(self, tmp_path: Path) -> None:
        items = [example(f"{n}", kind, score=n / 10, seed=n) for n, kind in enumerate(["good", "hole", "good", "dent"])]
        evaluation = evaluated(items)
        page = page_of(items, tmp_path)
        for metrics in (evaluation["overall"], *evaluation["by_kind"].values()):
            for name in ("pixel_auroc", "image_auroc", "average_precision", "aupro", "f1_max"):
                assert f"{metrics[name]:.4f}" in page.text
        for words in ("passed", "missed"):
            assert words in page.text

    def test_the_bound_is_never_understated(self) -> None:
        evaluation = evaluated([example(kind="good"), example()])
        for bound, shown in ((1e-9, "0.0001"), (0.0001, "0.0001"), (0.00011, "0.0002"), (0.25, "0.2500")):
            evaluation["overall"]["aupro_bound"] = bound
            assert f"\N{PLUS-MINUS SIGN} {shown}<" in metrics_table(evaluation, count_images(evaluation, THRESHOLD))

    def test_the_worst_comes_first(self, tmp_path: Path) -> None:
        scores = [0.5, 0.1, 0.9]
        items = [example(f"{kind}{score}", kind, score=score) for kind in ("dent", "good") for score in scores]
        page = page_of(items, tmp_path)
        names = [str(tag["alt"]).split(", ")[1] for tag in page.named("img") if str(tag["alt"]).startswith("input")]
        assert names == ["dent0.1", "dent0.5", "dent0.9", "good0.9", "good0.5", "good0.1"]
        verdicts = re.findall(
            r"found|missed|passed|false alarm", page.text.split("show only missed defects and false alarms")[1]
        )
        assert verdicts == [
            *["missed", "missed", "found", "found"],  # the first stands in the heading: "1 missed"
            *["false alarm", "false alarm", "false alarm", "passed"],  # here too: "2 false alarms"
        ]

    def test_counts_at_the_threshold(self, tmp_path: Path) -> None:
        items = [example(f"{n}", "good", score=score) for n, score in enumerate((0.1, 0.3, 0.31))]
        items += [example(f"{n}", "dent", score=score) for n, score in enumerate((0.1, 0.3, 0.31, 0.9))]
        page = page_of(items, tmp_path)
        assert "Defective images found2 of 4" in page.text
        assert "False alarms1 of 3" in page.text

    def test_undefined_figures_are_dashes_that_say_why(self, tmp_path: Path) -> None:
        items = [
            example(kind="good", score=0.1),
            example("a", "dent", masked=False),
            example("b", "hole", masked=False),
        ]
        page = page_of(items, tmp_path)
        reasons = {tag["title"] for tag in page.named("abbr")}
        assert reasons == {"no mask with defective pixels came with these images"}
        assert "2 defective images came without a mask" in page.text
        assert "no mask given" in page.text
        assert "nan" not in page.text.lower()

    def test_only_good_images(self, tmp_path: Path) -> None:
        page = page_of([example(f"{n}", "good", score=n / 8, masked=False) for n in range(5)], tmp_path)
        assert {tag["title"] for tag in page.named("abbr")} >= {"there are no defective test images"}
        assert "False alarms2 of 5" in page.text
        assert "ROC" not in page.text.split("Curves")[2]
        assert page.text.count("no defect to mark") == 5

    def test_only_defective_images(self, tmp_path: Path) -> None:
        page = page_of([example("a"), example("b", score=0.1)], tmp_path)
        assert {tag["title"] for tag in page.named("abbr")} >= {"there are no good test images to compare with"}
        assert "Defective images found1 of 2" in page.text

    def test_training_without_test_images(self, tmp_path: Path) -> None:
        page = written(builder(), tmp_path, history=history())
        assert "this page shows the training alone" in page.text
        assert "AW-SSIM" in page.text
        assert page.pictures() == []
        assert not any(tag.get("href") == "#images" for tag in page.named("a"))

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        page = written(builder(), tmp_path)
        assert page.named("svg") == []
        assert "Configuration" in page.text

    def test_configuration_and_versions_are_given_in_full(self, tmp_path: Path) -> None:
        config = '[loss]\nname = "aw-ssim"\n\tsigma = [0.5, 2.5]\n'
        page = written(builder(), tmp_path, config_text=config, versions={"torch": "2.13.0"}, notes=["first", "second"])
        assert config in page.text
        assert "torch2.13.0" in page.text
        assert "firstsecond" in page.text

    def test_300_examples_stay_small_and_are_not_kept(self, tmp_path: Path) -> None:
        report = builder(max_side=32)
        alive = []
        for number in range(300):
            item = example(f"{number}", ("good", "dent")[number % 2], size=(64, 64), seed=number)
            alive.append(weakref.ref(item.image))
            report.add(item)
        del item
        gc.collect()
        assert [found for found in alive if found() is not None] == []
        page = written(report, tmp_path)
        assert len(page.pictures()) == 1500
        # The pictures of an example, its words and mark-up: at most 8 bytes for each pixel shown.
        assert len(page.source) < 8 * 300 * 32 * 32 + 60_000

    def test_the_same_input_gives_the_same_bytes_and_the_page_can_grow(self, tmp_path: Path) -> None:
        report = builder()
        report.add(example())
        first = written(report, tmp_path).source
        assert written(report, tmp_path).source == first
        report.add(example("second.png"))
        assert len(written(report, tmp_path).pictures()) == 10

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"threshold": math.nan}, "threshold is nan"),
            ({"map_range": (1.0, 0.0)}, "the range of scores is 1.0 to 0.0"),
            ({"max_side": 15}, "max_side is 15; accepted: at least 16"),
        ],
    )
    def test_a_builder_that_cannot_draw_is_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            builder(**changes)

    def test_a_page_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"missing/report\.html"):
            written(builder(), tmp_path / "missing")


class TestText:
    @given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
    def test_printable_text_comes_back_unchanged(self, given_text: str) -> None:
        escaped = text(given_text)
        assert not set(escaped) & set("<>\"'")
        parser = Page(f'<p title="{escaped}">{escaped}</p>')
        assert parser.text == given_text
        assert parser.tags == [("p", {"title": given_text})]

    @given(st.text(st.characters()))
    def test_any_text_can_be_written_and_hides_nothing(self, given_text: str) -> None:
        escaped = text(given_text)
        escaped.encode("utf-8")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", escaped)
