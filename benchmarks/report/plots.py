"""Pictures of one run: time over size, roofline, ratio to peers, memory, scaling."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.scaling import LABEL, fits
from benchmarks.report.tables import Comparison, ceilings, comparisons, three_digits
from benchmarks.rows import Row

_OURS = "#c2410c"
_OTHERS = ("#1d4ed8", "#0f766e", "#7e22ce", "#a16207", "#475569", "#be185d", "#15803d")
_STYLE: Any = {
    "font.size": 9,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the pictures for which there are rows; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    found = comparisons(rows)
    kernels = [comparison for comparison in found if comparison.in_groups("kernel")]
    pictures: dict[str, Callable[[], Figure | None]] = {
        "time": lambda: _time_over_size(kernels),
        "roofline": lambda: _roofline(kernels, ceilings(rows)),
        "ratio": lambda: _ratios([comparison for comparison in found if comparison.peers]),
        "memory": lambda: _memory(kernels),
        "scaling": lambda: _scaling(found),
    }
    written = []
    with mpl.rc_context(_STYLE):
        for name, picture in pictures.items():
            figure = picture()
            if figure is not None:
                written.append(folder / f"{name}.png")
                figure.savefig(written[-1], dpi=110)
    return written


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _colors(found: Sequence[Comparison], *, yardsticks: bool = True) -> dict[str, str]:
    """One for each contender, the same in every panel."""
    timed = [row for comparison in found for row in comparison.timed if yardsticks or row["role"] != "yardstick"]
    others = dict.fromkeys(row["contender"] for row in timed if row["role"] != "ours")
    colors = {name: _OTHERS[index % len(_OTHERS)] for index, name in enumerate(others)}
    return {**colors, **{row["contender"]: _OURS for row in timed if row["role"] == "ours"}}


def _time_over_size(kernels: Sequence[Comparison]) -> Figure | None:
    """One panel for each work that was timed at several sizes."""
    works: dict[str, list[Comparison]] = {}
    for comparison in kernels:
        works.setdefault(comparison.name, []).append(comparison)
    works = {name: points for name, points in works.items() if len(points) > 1}
    if not works:
        return None
    columns = 2 if len(works) > 1 else 1
    lines = -(-len(works) // columns)
    figure = _figure(5.2 * columns, 3.4 * lines)
    colors = _colors(kernels)
    for panel, (name, points) in enumerate(works.items(), start=1):
        axes = figure.add_subplot(lines, columns, panel)
        names = list(dict.fromkeys(row["contender"] for point in points for row in point.timed))
        width = 0.8 / len(names)
        for place, contender in enumerate(names):
            for x, point in enumerate(points):
                for row in point.timed:
                    if row["contender"] == contender:
                        left, middle = x + (place - (len(names) - 1) / 2) * width, row["seconds"] * 1e3
                        below, above = middle - row["p20"] * 1e3, row["p80"] * 1e3 - middle
                        axes.bar(left, middle, width, color=colors[contender], label=contender)
                        axes.errorbar(left, middle, [[max(below, 0)], [max(above, 0)]], color="#111827", lw=0.8)
        for x, point in enumerate(points):
            floor = point.ours["floor_seconds"] * 1e3
            axes.plot([x - 0.45, x + 0.45], [floor, floor], color="#111827", ls=":", label="the machine's ceiling")
        axes.set_yscale("log")
        axes.set_xticks(range(len(points)), [point.size for point in points], rotation=12)
        axes.set_title(name, loc="left", fontweight="bold")
        axes.set_ylabel("ms a call")
    _legend_of_all(figure)
    return figure


def _legend_of_all(figure: Figure) -> None:
    known: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        known.update(zip(labels, handles, strict=True))
    figure.legend(handles=list(known.values()), labels=list(known), loc="outside lower center", ncols=4)


def _roofline(kernels: Sequence[Comparison], ceiling: Row) -> Figure | None:
    """Every contender of every kernel case: least work over time, against what the machine can do."""
    points = [
        comparison for comparison in kernels if comparison.ours["least_multiply_adds"] and comparison.pixels > 1e4
    ]
    if not points:
        return None
    figure = _figure(8.6, 5.2)
    axes = figure.add_subplot()
    bandwidth, rate = ceiling["bytes_per_second"], ceiling["multiply_adds_per_second"]
    intensities = [_intensity(comparison.ours) for comparison in points]
    low, high = min(*intensities, rate / bandwidth) / 3, max(*intensities, rate / bandwidth) * 3
    ridge = rate / bandwidth
    axes.plot([low, ridge, high], [low * bandwidth / 1e9, rate / 1e9, rate / 1e9], color="#111827", lw=1.6)
    axes.annotate(
        f"copy: {bandwidth / 1e9:.0f} GB/s",
        (low, low * bandwidth / 1e9),
        xytext=(6, -2),
        textcoords="offset points",
        va="top",
    )
    axes.annotate(
        f"float32: {rate / 1e9:.0f} billion multiply-adds a second",
        (high, rate / 1e9),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
    )
    markers = dict(zip(dict.fromkeys(point.name for point in points), "osD^vP*X", strict=False))
    colors = _colors(points)
    for comparison in points:
        for row in comparison.timed:
            if row["role"] != "yardstick":
                own = row["role"] == "ours"
                axes.plot(
                    _intensity(row),
                    row["least_multiply_adds"] / row["seconds"] / 1e9,
                    ls="",
                    color=colors[row["contender"]],
                    marker=markers[comparison.name],
                    ms=7 if own else 4.5,
                    alpha=1 if own else 0.6,
                )
    for name, marker in markers.items():
        axes.plot([], [], ls="", marker=marker, color="#6b7280", label=name)
    for name, color in _colors(points, yardsticks=False).items():
        axes.plot([], [], ls="", marker="s", ms=5, color=color, label=name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="least multiply-adds for each byte that must move",
        ylabel="billion least multiply-adds a second",
    )
    axes.set_title(f"Roofline of {ceiling['device']}", loc="left", fontweight="bold")
    figure.legend(loc="outside right upper")
    return figure


def _intensity(row: Row) -> float:
    return float(row["least_multiply_adds"] / row["least_bytes"])


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], colors: Sequence[str], unit: str) -> None:
    axes.barh(range(len(names)), values, color=list(colors), height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    for place, value in enumerate(values):
        axes.annotate(
            f"{three_digits(value)}{unit}",
            (value, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )


def _ratios(found: Sequence[Comparison]) -> Figure | None:
    """How many times as long each peer takes."""
    if not found:
        return None
    bars = [
        (
            f"{comparison.name} {comparison.size}: {row['contender']}",
            row["seconds"] / comparison.ours["seconds"],
            row["contender"],
        )
        for comparison in found
        for row in comparison.peers
    ]
    figure = _figure(9.5, 0.8 + 0.19 * len(bars))
    axes = figure.add_subplot()
    colors = _colors(found)
    _bars(axes, [bar[0] for bar in bars], [bar[1] for bar in bars], [colors[bar[2]] for bar in bars], "x")
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color=_OURS, lw=1.5)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_title("Time of the others, in units of ours", loc="left", fontweight="bold")
    return figure


def _memory(kernels: Sequence[Comparison]) -> Figure | None:
    measured = [comparison for comparison in kernels if comparison.in_groups("memory")]
    if not measured:
        return None
    bars = [
        (f"{comparison.name} {comparison.size}: {row['contender']}", row["peak_bytes"] / 2**20, row["contender"])
        for comparison in measured
        for row in sorted(comparison.timed, key=lambda row: float(row["peak_bytes"]))
    ]
    figure = _figure(9.5, 0.8 + 0.22 * len(bars))
    axes = figure.add_subplot()
    colors = _colors(measured)
    _bars(axes, [bar[0] for bar in bars], [bar[1] for bar in bars], [colors[bar[2]] for bar in bars], " MiB")
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title("Peak memory that one call adds", loc="left", fontweight="bold")
    return figure


def _scaling(found: Sequence[Comparison]) -> Figure | None:
    lines = fits(found)
    if not lines:
        return None
    figure = _figure(4.2 * len(lines), 3.4)
    for panel, fit in enumerate(lines, start=1):
        axes = figure.add_subplot(1, len(lines), panel)
        axes.axvspan(fit.linear[0] / 1e3, fit.linear[1] / 1e3, color="#f3f4f6", label="linear")
        axes.plot(
            [n / 1e3 for n in fit.pixels],
            [s / n * 1e9 for s, n in zip(fit.seconds, fit.pixels, strict=True)],
            "o-",
            color=_OURS,
            label="measured",
        )
        fitted = [(fit.fixed + fit.per_pixel * n) / n * 1e9 for n in fit.pixels]
        axes.plot([n / 1e3 for n in fit.pixels], fitted, ":", color="#111827", label="fixed + per pixel")
        axes.set(xscale="log", ylim=(0, None), xlabel="thousand pixels", ylabel="ns a pixel")
        axes.set_title(f"{LABEL}{fit.axis}", loc="left", fontweight="bold")
        axes.legend()
    return figure
