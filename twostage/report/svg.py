"""Small line and bar charts as inline SVG. Colours and dashes are classes of the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from twostage.report.markup import figure, text

WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 42

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Maps values from ``low`` .. ``high`` to pixels ``start`` .. ``end``."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def between(self, share: float) -> float:
        """The value that lies at a share of the way from ``start`` to ``end``."""
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values for about five marks inside the range."""
        return _log_ticks(self.low, self.high) if self.logarithmic else _linear_ticks(self.low, self.high)


def across(low: float, high: float, *, logarithmic: bool = False) -> Scale:
    """A horizontal scale over the width of a chart."""
    return Scale(low, high, LEFT, WIDTH - RIGHT, logarithmic)


def upward(low: float, high: float, *, height: float = HEIGHT, logarithmic: bool = False) -> Scale:
    """A vertical scale over the height of a chart."""
    return Scale(low, high, height - BOTTOM, TOP, logarithmic)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    factors = (1, 2, 5) if decades < 2.5 else (1,)
    every = max(1, round(decades / 5))
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, every)
    found = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


class Chart:
    """An SVG picture with two axes. Draw from back to front, then :meth:`render`.

    Args:
        description: what the chart shows, in a sentence, for those who do not see it.
        absolute: write vertical marks without their sign (for charts that are mirrored at zero).
    """

    def __init__(
        self,
        description: str,
        x: Scale,
        y: Scale,
        x_label: str,
        y_label: str,
        *,
        height: float = HEIGHT,
        percent: bool = False,
        absolute: bool = False,
    ) -> None:
        self.x, self.y = x, y
        self._height = height
        self._description = description
        self._parts: list[str] = []
        self._draw_axes(x_label, y_label, percent=percent, absolute=absolute)

    def line(self, points: Sequence[Point], style: str) -> None:
        """A line through points in units of the axes."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self._parts.append(f'<polyline class="{style}" points="{path}"/>')

    def bar(self, left: float, right: float, bottom: float, top: float, style: str, label: str) -> None:
        """A bar, all in units of the axes; ``label`` shows where the pointer rests on it."""
        x, width = self.x(left), self.x(right) - self.x(left)
        y, height = min(self.y(bottom), self.y(top)), abs(self.y(top) - self.y(bottom))
        self._parts.append(
            f'<rect class="{style}" x="{x + 0.4:.1f}" y="{y:.1f}" width="{max(width - 0.8, 0.5):.1f}" '
            f'height="{height:.1f}"><title>{text(label)}</title></rect>'
        )

    def vertical(self, value: float, style: str, label: str = "") -> None:
        """A line from bottom to top, its label beside its upper end."""
        x = self.x(value)
        self._segment(x, self.y.start, x, self.y.end, style)
        if label:
            anchor, shift = ("end", -4) if x > (LEFT + WIDTH - RIGHT) / 2 else ("start", 4)
            self._text(x + shift, TOP + 9, label, f"label {anchor}")

    def horizontal(self, value: float, style: str) -> None:
        """A line from left to right."""
        y = self.y(value)
        self._segment(self.x.start, y, self.x.end, y, style)

    def note(self, x: float, y: float, label: str, anchor: str = "start") -> None:
        """Text at a place in units of the axes."""
        self._text(self.x(x), self.y(y), label, f"label {anchor}")

    def render(self) -> str:
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {self._height:g}" role="img" '
            f'aria-label="{text(self._description)}">{"".join(self._parts)}</svg>'
        )

    def _draw_axes(self, x_label: str, y_label: str, *, percent: bool, absolute: bool) -> None:
        for value in self.y.ticks():
            self.horizontal(value, "grid")
            shown = abs(value) if absolute else value
            label = f"{shown * 100:.4g} %" if percent else figure(shown)
            self._text(LEFT - 5, self.y(value) + 4, label, "tick end")
        bottom = self.y.start
        for value in self.x.ticks():
            self._segment(self.x(value), bottom, self.x(value), bottom + 4, "axis")
            self._text(self.x(value), bottom + 16, figure(value), "tick middle")
        self._segment(self.x.start, bottom, self.x.end, bottom, "axis")
        self._text((self.x.start + self.x.end) / 2, bottom + 35, x_label, "label middle")
        middle = (self.y.start + self.y.end) / 2
        self._parts.append(
            f'<text class="label middle" transform="translate(11 {middle:.1f}) rotate(-90)">{text(y_label)}</text>'
        )

    def _segment(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self._parts.append(f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def _text(self, x: float, y: float, content: str, style: str) -> None:
        self._parts.append(f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{text(content)}</text>')


def figure_block(title: str, charts: str, keys: Sequence[tuple[str, str]], explanation: str) -> str:
    """Charts with a heading, a legend of (style, label) and a sentence on how to read them."""
    legend = "".join(
        f'<li><svg class="swatch" viewBox="0 0 26 10" aria-hidden="true">'
        f'<line class="{style}" x1="1" y1="5" x2="25" y2="5"/></svg>{text(label)}</li>'
        for style, label in keys
    )
    legend = f'<ul class="legend">{legend}</ul>' if legend else ""
    return (
        f'<figure class="plot"><h3>{text(title)}</h3>{charts}{legend}'
        f"<figcaption>{text(explanation)}</figcaption></figure>"
    )
