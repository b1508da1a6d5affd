"""The page that the demo's reports hang on."""

import base64
import hashlib
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image
from torch import Tensor

from twostage.calibration import Calibration
from twostage.cli.outcome import example_of, figure_text, map_range
from twostage.data import GOOD, Sample
from twostage.detector import Prediction
from twostage.evaluation import Metrics
from twostage.files import write_text_atomic
from twostage.report import overlay, plain_picture


class Strip:
    """One test image of every defect beside the scores that it got."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self.pictures: dict[str, bytes] = {}

    def add(self, sample: Sample, prediction: Prediction, mask: Tensor | None) -> None:
        """Keep the first image of every kind of defect; nothing of the others."""
        if sample.kind == GOOD or sample.kind in self.pictures:
            return
        example = example_of(sample, prediction, mask)
        low, high = map_range(self.calibration)
        scored = overlay(
            example.image, example.score_map, low, high, mask=example.mask, threshold=self.calibration.threshold
        )
        buffer = io.BytesIO()
        pair = Image.fromarray(np.concatenate((plain_picture(example.image), scored)))
        pair.thumbnail((192, 384))
        pair.save(buffer, "PNG", optimize=True)
        self.pictures[sample.kind] = buffer.getvalue()


@dataclass(frozen=True)
class Surface:
    """What the demo reached on one data set."""

    name: str
    report: Path
    overall: Metrics | None
    """None where there are no test images."""
    seconds: float
    strip: Strip

    @property
    def figures(self) -> tuple[str, str, str]:
        """Pixel AuROC, image AuROC, AUPRO; a dash where one is undefined."""
        if self.overall is None:
            return figure_text(math.nan), figure_text(math.nan), figure_text(math.nan)
        overall = self.overall
        return figure_text(overall.pixel_auroc), figure_text(overall.image_auroc), figure_text(overall.aupro)


def write_index(path: Path, surfaces: Sequence[Surface], notes: Sequence[str]) -> None:
    """Write a page with the figures of every surface, some of its pictures, and the way to its report.

    Raises:
        OutputError: the page cannot be written.
    """
    rows = "".join(_row(surface, path.parent) for surface in surfaces)
    sections = "".join(_section(surface, path.parent) for surface in surfaces)
    noted = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    style = hashlib.sha256(_STYLE.encode()).digest()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{base64.b64encode(style).decode()}'"
    write_text_atomic(
        path,
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>twostage demo</title>\n<style>{_STYLE}</style>\n'
        f"</head>\n<body>\n<h1>twostage demo</h1>\n<p>{_INTRODUCTION}</p>\n<ul>{noted}</ul>\n"
        f"{_HEADINGS}{rows}</tbody></table></div>\n{sections}</body>\n</html>\n",
    )


_INTRODUCTION = (
    "Each surface was learnt from images of good parts alone. Below, one test image of every kind of defect, and under "
    "it the scores: heat where the score is high, a cyan line around the true defect, a white line where the score is "
    "above the threshold. The reports show every test image."
)

_HEADINGS = (
    '<div class="scroll"><table><thead><tr><th scope="col">Surface</th><th scope="col">Pixel AuROC</th>'
    '<th scope="col">Image AuROC</th><th scope="col">AUPRO</th><th scope="col">Seconds</th></tr></thead><tbody>'
)

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8886 }
th:first-child { text-align: left; padding-left: 0 }
.strip { display: flex; flex-wrap: wrap; gap: .75rem }
figure { margin: 0; text-align: center }
img { display: block; width: 12rem; max-width: 100% }
figcaption { font-size: .85rem }
"""


def _row(surface: Surface, folder: Path) -> str:
    cells = "".join(f"<td>{figure}</td>" for figure in surface.figures)
    return f'<tr><th scope="row">{_link(surface, folder, surface.name)}</th>{cells}<td>{surface.seconds:.0f}</td></tr>'


def _section(surface: Surface, folder: Path) -> str:
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(data).decode()}" '
        f'alt="{html.escape(surface.name)}, {html.escape(kind)}: image and scores">'
        f"<figcaption>{html.escape(kind)}</figcaption></figure>"
        for kind, data in surface.strip.pictures.items()
    )
    link = _link(surface, folder, "full report")
    return f'<h2>{html.escape(surface.name)}</h2>\n<div class="strip">{figures}</div>\n<p>{link}</p>\n'


def _link(surface: Surface, folder: Path, label: str) -> str:
    address = quote(surface.report.relative_to(folder).as_posix())
    return f'<a href="{address}">{html.escape(label)}</a>'
