"""The charts of the report: ROC curves, score histogram, training curves, the colour bar of the score map."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twostage.evaluation import GOOD
from twostage.report.markup import counted, figure, number, text
from twostage.report.pictures import colours
from twostage.report.svg import Chart, Point, Scale, across, figure_block, upward

_BINS = 36
# Past this ratio of the largest to the smallest value a linear axis would hide the small ones.
_WIDE = 30.0
_ROWS_DRAWN = 600
_SIGMA_HEIGHT = 130
_NOT_TERMS = ("step", "stage", "epoch", "sigma", "loss", "patches_per_second")
_TERM_NAMES = {"aw_ssim": "AW-SSIM", "ssim": "SSIM", "l1": "L1", "lpips": "LPIPS"}
_TERM_STYLES = 4

Row = Mapping[str, Any]


def roc_chart(evaluation: Mapping[str, Any]) -> str:
    """Pixel and image ROC curves, or nothing where neither is defined."""
    overall = evaluation.get("overall") or {}
    chart = Chart(
        "ROC curves of pixels and of whole images",
        across(0, 1),
        upward(0, 1),
        "good ones wrongly called defective (share)",
        "defective ones found (share)",
    )
    chart.line([(0, 0), (1, 1)], "line chance")
    keys = []
    for level, style in (("pixel", "line series-1"), ("image", "line series-2")):
        curve = evaluation.get(f"{level}_roc") or {}
        points = list(zip(curve.get("false_positive_rate", ()), curve.get("true_positive_rate", ()), strict=True))
        if points:
            chart.line(points, style)
            area = number(overall.get(f"{level}_auroc"))
            keys.append((style, f"{level}s" if area is None else f"{level}s, area {area:.4f}"))
    if not keys:
        return ""
    return figure_block(
        "ROC curves",
        chart.render(),
        [*keys, ("line chance", "guessing")],
        "Every point is one possible threshold. The nearer a curve comes to the upper left corner, "
        "the more defects are found for the same number of false alarms.",
    )


def score_chart(images: Sequence[Mapping[str, Any]], threshold: float) -> str:
    """Histogram of image scores, good ones upward and defective ones downward, or nothing without images."""
    good = [image["score"] for image in images if image["kind"] == GOOD]
    defective = [image["score"] for image in images if image["kind"] != GOOD]
    everything = [*good, *defective, threshold]
    if len(everything) == 1:
        return ""
    low, high = min(everything), max(everything)
    logarithmic = low > 0 and high / low > _WIDE
    if logarithmic:
        low, high = low / 1.1, high * 1.1
    else:
        margin = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
    x = across(low, high, logarithmic=logarithmic)
    groups = [("good", "bar good", 1, good), ("defective", "bar defective", -1, defective)]
    bars = [(style, sign, _binned(x, scores), len(scores), name) for name, style, sign, scores in groups]
    tallest = {sign: max(counts) / max(size, 1) for _, sign, counts, size, _ in bars}
    y = upward(-1.15 * tallest[-1], 1.3 * tallest[1])
    label = "image score" + (" (logarithmic axis)" if logarithmic else "")
    title = f"Histogram of image scores: {counted(len(good), 'good image')}, {len(defective)} defective"
    chart = Chart(title, x, y, label, "share of each group", percent=True, absolute=True)
    for style, sign, counts, size, name in bars:
        for index, count in enumerate(counts):
            if count:
                left, right = x.between(index / _BINS), x.between((index + 1) / _BINS)
                tooltip = f"{count} {name}, score {figure(left)} to {figure(right)}"
                chart.bar(left, right, 0, sign * count / size, style, tooltip)
    chart.horizontal(0, "axis")
    chart.vertical(threshold, "line threshold", f"threshold {figure(threshold)}")
    keys = [(f"key {style}", f"{name}: {size}") for style, _, _, size, name in bars]
    return figure_block(
        "Image scores",
        chart.render(),
        [*keys, ("line threshold", "threshold")],
        "Good images should lie left of the threshold (drawn upward), defective ones right of it (drawn downward). "
        "The threshold comes from good images held out of training, never from test images.",
    )


def _binned(x: Scale, scores: Sequence[float]) -> list[int]:
    counts = [0] * _BINS
    for score in scores:
        share = (x(score) - x.start) / (x.end - x.start)
        counts[min(int(share * _BINS), _BINS - 1)] += 1
    return counts


def training_chart(history: Sequence[Row]) -> str:
    """The loss and its terms, and sigma below, over the steps of both stages; nothing without rows."""
    rows = [row for row in _thinned(history) if number(row.get("step")) is not None]
    if not rows:
        return ""
    terms = sorted({name for row in rows for name in row if name not in _NOT_TERMS and number(row[name]) is not None})
    styles = {name: f"line series-{index % _TERM_STYLES + 1}" for index, name in enumerate(terms)}
    keys = [("line loss", "loss"), *((style, _TERM_NAMES.get(name, name)) for name, style in styles.items())]
    charts = _loss_chart(rows, {"loss": "line loss", **styles}) + _sigma_chart(rows)
    return figure_block(
        "Training",
        charts,
        keys,
        "The loss says how far reconstructions are from the good patches they should show; its terms are drawn before "
        "weighing. Sigma is the width of the window it compares through; it starts small in every epoch and grows. "
        "The two stages have different losses: their heights are not comparable.",
    )


def _loss_chart(rows: Sequence[Row], styles: Mapping[str, str]) -> str:
    values = _values(rows, styles)
    if not values:
        return ""
    smallest, largest = min(values), max(values)
    logarithmic = smallest > 0 and largest / smallest > _WIDE
    base = smallest if logarithmic else min(0.0, smallest)
    top = largest * 1.05 if largest > base else base + 1
    y = upward(base, top, logarithmic=logarithmic)
    chart = Chart("Training loss over the steps", _steps(rows), y, "step", "loss" + (" (log.)" if logarithmic else ""))
    for name, style in styles.items():
        _draw_series(chart, rows, name, style)
    _mark_stages(chart, rows, label="stage {}")
    return chart.render()


def _sigma_chart(rows: Sequence[Row]) -> str:
    largest = max(_values(rows, ["sigma"]), default=0.0)
    if largest <= 0:
        return ""
    y = upward(0, largest * 1.1, height=_SIGMA_HEIGHT)
    chart = Chart("Sigma over the steps", _steps(rows), y, "step", "sigma (px)", height=_SIGMA_HEIGHT)
    _draw_series(chart, rows, "sigma", "line sigma")
    _mark_stages(chart, rows)
    return chart.render()


def _values(rows: Sequence[Row], names: Iterable[str]) -> list[float]:
    found = (number(row.get(name)) for name in names for row in rows)
    return [value for value in found if value is not None]


def _steps(rows: Sequence[Row]) -> Scale:
    first, last = rows[0]["step"], rows[-1]["step"]
    return across(first, max(last, first + 1))


def _thinned(history: Sequence[Row]) -> list[Row]:
    rows = [{"stage": 0, **row} for row in history]
    every = -(-len(rows) // _ROWS_DRAWN)
    kept = range(0, len(rows), max(every, 1))
    return [rows[index] for index in sorted({*kept, len(rows) - 1})] if rows else []


def _draw_series(chart: Chart, rows: Sequence[Row], name: str, style: str) -> None:
    """One line for each stretch of rows of one stage that have the value."""
    stretch: list[Point] = []
    stage = None
    for row in rows:
        value = number(row.get(name))
        if value is None or row["stage"] != stage:
            _draw_stretch(chart, stretch, style)
            stretch, stage = [], row["stage"]
        if value is not None:
            stretch.append((row["step"], value))
    _draw_stretch(chart, stretch, style)


def _draw_stretch(chart: Chart, points: Sequence[Point], style: str) -> None:
    if len(points) == 1:
        chart.line([points[0], points[0]], f"{style} dot")
    elif points:
        chart.line(points, style)


def _mark_stages(chart: Chart, rows: Sequence[Row], label: str = "") -> None:
    stages = [row["stage"] for row in rows]
    starts = [row["step"] for row, before, stage in zip(rows[1:], stages, stages[1:], strict=False) if stage != before]
    for stage_number, step in enumerate(starts, start=2):
        chart.vertical(step, "line boundary", label.format(stage_number))


def colour_bar(low: float, high: float, threshold: float) -> str:
    """The colours of the score map with its range and the threshold."""
    left, right, y = 8, 312, 18
    stops = "".join(
        f'<stop offset="{index / 16:.4f}" stop-color="{colour}"/>' for index, colour in enumerate(colours(17))
    )
    position = left + (threshold - low) / (high - low) * (right - left)
    mark = ""
    if left <= position <= right:
        mark = (
            f'<path class="mark" d="M{position:.1f} {y + 14}v-14m-4 -5h8l-4 5z"/>'
            f'<text class="tick middle" x="{min(max(position, 40), 280):.1f}" y="10">'
            f"threshold {text(figure(threshold))}</text>"
        )
    label = f"Colours of the score map from {figure(low)} to {figure(high)}, threshold {figure(threshold)}"
    return (
        f'<svg class="chart bar-of-colours" viewBox="0 0 320 52" role="img" aria-label="{text(label)}">'
        f'<linearGradient id="heat">{stops}</linearGradient>'
        f'<rect x="{left}" y="{y}" width="{right - left}" height="14" fill="url(#heat)"/>{mark}'
        f'<text class="tick start" x="{left}" y="46">{text(figure(low))}</text>'
        f'<text class="tick end" x="{right}" y="46">{text(figure(high))}</text></svg>'
    )
