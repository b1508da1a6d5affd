"""The report as one HTML file that needs nothing else."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from twostage.errors import ConfigError
from twostage.files import write_text_atomic
from twostage.report import figures, tables
from twostage.report.example import Example
from twostage.report.gallery import Row, gallery, render_row
from twostage.report.markup import text
from twostage.report.pictures import RESIDUAL_FULL_SCALE, require_range

_SMALLEST_SIDE = 16


class ReportBuilder:
    """Collects examples one by one and writes the page.

    Only the encoded pictures of an example are kept: some 50 kB at 256 x 256 pixels.

    Args:
        title: of the page.
        threshold: an image that scores above it is called defective; in score maps the same value bounds the defect.
        map_range: scores that get no heat and full heat in the overlays.
        map_name: of the score map.
        max_side: pixels of the longer side of the pictures; larger ones are scaled down.

    Raises:
        ConfigError: the threshold is not finite, the range is empty or not finite, or ``max_side`` is below 16.
    """

    def __init__(
        self, title: str, *, threshold: float, map_range: tuple[float, float], map_name: str, max_side: int = 256
    ) -> None:
        if not math.isfinite(threshold):
            raise ConfigError(f"threshold is {threshold!r}; accepted: a finite number")
        if max_side < _SMALLEST_SIDE:
            raise ConfigError(f"max_side is {max_side!r}; accepted: at least {_SMALLEST_SIDE}")
        require_range(*map_range)
        self.title = title
        self.threshold = threshold
        self.map_range = map_range
        self.map_name = map_name
        self.max_side = max_side
        self._rows: list[Row] = []

    def add(self, example: Example) -> None:
        """Draw and encode an example; nothing of it is kept but that."""
        self._rows.append(
            render_row(example, threshold=self.threshold, map_range=self.map_range, max_side=self.max_side)
        )

    def write(
        self,
        path: Path,
        *,
        evaluation: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]],
        config_text: str,
        versions: Mapping[str, str],
        notes: Sequence[str] = (),
    ) -> None:
        """Write the page, atomically. Examples can be added and the page written again afterwards.

        Args:
            path: of the HTML file.
            evaluation: from ``Evaluation.to_dict``; empty where nothing was evaluated.
            history: rows with ``step``, ``stage`` (from 0), ``epoch``, ``sigma``, ``loss`` and the loss terms; may be
                empty.
            config_text: the configuration as text.
            versions: of what made the result, by name.
            notes: what a reader must know, shown on top.

        Raises:
            OutputError: the file cannot be written; what was there before is untouched.
        """
        sections = [
            ("results", "Results", self._results(evaluation)),
            ("curves", "Curves", self._curves(evaluation, history)),
            ("images", "Images", self._images()),
            ("settings", "Configuration and versions", _settings(config_text, versions)),
        ]
        sections = [(key, heading, content) for key, heading, content in sections if content]
        links = "".join(f'<a href="#{key}">{text(heading)}</a>' for key, heading, _ in sections)
        noted = "".join(f"<li>{text(note)}</li>" for note in notes)
        noted = f'<ul class="notes">{noted}</ul>' if noted else ""
        main = "".join(
            f'<section id="{key}"><h2>{text(heading)}</h2>{content}</section>' for key, heading, content in sections
        )
        body = f"<header><h1>{text(self.title)}</h1><nav>{links}</nav></header><main>{noted}{main}</main>{_DIALOG}"
        write_text_atomic(path, _document(self.title, body))

    def _results(self, evaluation: Mapping[str, Any]) -> str:
        counts = tables.count_images(evaluation, self.threshold)
        if not evaluation:
            return "<p>No test images were evaluated: this page shows the training alone.</p>"
        return tables.headline(evaluation, counts) + tables.metrics_table(evaluation, counts)

    def _curves(self, evaluation: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
        plots = (
            figures.roc_chart(evaluation)
            + figures.score_chart(evaluation.get("images") or (), self.threshold)
            + figures.training_chart(history)
        )
        return f'<div class="plots">{plots}</div>' if plots else ""

    def _images(self) -> str:
        if not self._rows:
            return ""
        return _HOW_TO_READ.format(
            bar=figures.colour_bar(*self.map_range, self.threshold),
            full_scale=f"{RESIDUAL_FULL_SCALE:.0%}",
            map_name=text(self.map_name),
        ) + gallery(self._rows, self.threshold)


_HOW_TO_READ = """<div class="how">
<ul>
<li><b>reconstruction</b>: what the network believes the part looks like when it is good</li>
<li><b>residual</b>: black where input and reconstruction agree, white from {full_scale} of the image range</li>
<li><b>mask</b>: the defect as a person marked it</li>
<li><b>score</b>: the score map ({map_name}) in colours over the input;
<span class="outline mask-line">cyan</span> runs around the mask,
<span class="outline contour-line">white</span> along what is above the threshold</li>
</ul>{bar}
</div>
<label class="filter"><input type="checkbox" id="only-wrong"> show only missed defects and false alarms</label>
"""

_DIALOG = """
<dialog id="viewer" aria-label="enlarged picture"><figure><img alt=""><figcaption></figcaption></figure>
<div class="steps"><button type="button" data-step="ArrowLeft" aria-label="previous picture">←</button>
<button type="button" data-step="ArrowUp" aria-label="image before">↑</button>
<button type="button" data-step="ArrowDown" aria-label="next image">↓</button>
<button type="button" data-step="ArrowRight" aria-label="next picture">→</button>
<button type="button" data-step="close" aria-label="close">✕</button></div></dialog>
"""


def _settings(config_text: str, versions: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{text(version)}</td></tr>' for name, version in versions.items()
    )
    return (
        f"<details><summary>Configuration</summary><pre>{text(config_text)}</pre></details>"
        f'<details><summary>Versions</summary><div class="scroll"><table>{rows}</table></div></details>'
    )


def _document(title: str, body: str) -> str:
    folder = resources.files("twostage.report")
    style = folder.joinpath("report.css").read_text(encoding="utf-8")
    script = folder.joinpath("report.js").read_text(encoding="utf-8")
    # Nothing but what is in this file can run or be loaded, whatever text the report was given.
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
