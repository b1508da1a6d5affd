"""Generated examples, and a report read back the way a browser reads it."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from twostage.evaluation import Evaluator
from twostage.report import (
    Example,
    ReportBuilder,
)

THRESHOLD = 0.3


def photograph(channels: int, height: int, width: int, seed: int) -> Tensor:
    """Smooth shapes under a little noise, as a photograph has them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    return (smooth + 0.03 * torch.randn(channels, height, width, generator=generator)).clamp(0, 1)


def example(
    name: str = "000.png",
    kind: str = "scratch",
    *,
    score: float = 0.5,
    channels: int = 1,
    size: tuple[int, int] = (40, 48),
    masked: bool = True,
    seed: int = 0,
) -> Example:
    image = photograph(channels, *size, seed)
    reconstruction = photograph(channels, *size, seed + 1)
    mask = torch.zeros(size, dtype=torch.bool)
    if kind != "good":
        mask[10:16, 12:30] = True
    residual = (image - reconstruction).abs().mean(0)
    return Example(name, kind, image, reconstruction, residual, residual, mask if masked else None, score)


def builder(**changes: Any) -> ReportBuilder:
    options = {"threshold": THRESHOLD, "map_range": (0.0, 1.0), "map_name": "residual", **changes}
    return ReportBuilder(options.pop("title", "tiles"), **options)


def evaluated(examples: list[Example]) -> dict[str, Any]:
    evaluator = Evaluator()
    for item in examples:
        evaluator.add(item.score_map, item.mask, item.score, item.kind, name=item.name)
    return evaluator.result().to_dict()


def history(steps: int = 30) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(steps):
        stage = int(step >= steps // 2)
        row = {"step": step, "stage": stage, "epoch": step // 5, "sigma": 0.5 + step % 5, "loss": 1 / (step + 1)}
        rows.append({**row, "aw_ssim": 0.4, **({"lpips": 0.2} if stage else {})})
    return rows


class Page(HTMLParser):
    """A parsed page: every start tag with its attributes, the visible text, what style and script elements hold."""

    VOID = frozenset({"meta", "img", "br", "input", "link", "hr"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, str] = {"style": "", "script": ""}
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.raw:
            self.raw[self._open[-1]] += data
        else:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self) -> list[tuple[dict[str, str | None], Image.Image]]:
        found: list[tuple[dict[str, str | None], Image.Image]] = []
        for attributes in self.named("img"):
            source = attributes.get("src")
            if source is not None:
                header, data = source.split(",", 1)
                picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
                picture.load()
                assert header == f"data:image/{str(picture.format).lower()};base64"
                found.append((attributes, picture))
        return found


def written(report: ReportBuilder, path: Path, **changes: Any) -> Page:
    options: dict[str, Any] = {"evaluation": {}, "history": [], "config_text": "seed = 0\n", "versions": {}, **changes}
    report.write(path / "report.html", **options)
    return Page((path / "report.html").read_text(encoding="utf-8"))


def page_of(examples: list[Example], path: Path, **changes: Any) -> Page:
    report = builder()
    for item in examples:
        report.add(item)
    return written(report, path, **{"evaluation": evaluated(examples), "history": history(), **changes})
