"""The figures of an evaluation in words and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twostage.evaluation import GOOD
from twostage.report.example import Verdict
from twostage.report.markup import counted, number, text, undefined

# Key in the evaluation, heading, what it says in a sentence.
_METRICS = (
    ("image_auroc", "Image AuROC", "How often a defective image, drawn at random, scores above a good one."),
    ("pixel_auroc", "Pixel AuROC", "How often a defective pixel, drawn at random, scores above a good one."),
    (
        "aupro",
        "AUPRO",
        "How much of each defect is covered, every defect counting alike however small, while at most 30 % of the "
        "good pixels are wrongly marked.",
    ),
    (
        "average_precision",
        "Pixel AP",
        "Average precision: how pure the marked pixels are, averaged over all levels of completeness; "
        "strict where defects are small.",
    ),
    (
        "f1_max",
        "Pixel F1-max",
        "The best balance of purity and completeness of the marked pixels that any one threshold reaches.",
    ),
    ("image_average_precision", "Image AP", "The same average precision for whole images."),
    ("image_f1_max", "Image F1-max", "The same best balance for whole images."),
)
_HEADLINE = ("image_auroc", "pixel_auroc", "aupro")


@dataclass(frozen=True)
class Count:
    """Images of one group and how many of them score above the threshold."""

    images: int
    above: int


def count_images(evaluation: Mapping[str, Any], threshold: float) -> dict[str, Count]:
    """Images by kind."""
    counts: dict[str, Count] = {}
    for image in evaluation.get("images") or ():
        before = counts.get(image["kind"], Count(0, 0))
        above = Verdict.of(image["kind"], image["score"], threshold) in (Verdict.FOUND, Verdict.FALSE_ALARM)
        counts[image["kind"]] = Count(before.images + 1, before.above + above)
    return counts


def headline(evaluation: Mapping[str, Any], counts: Mapping[str, Count]) -> str:
    """The few figures to read first."""
    defective, good = _defective(counts), counts.get(GOOD, Count(0, 0))
    cells = []
    if defective.images:
        cells.append(("Defective images found", f"{defective.above} of {defective.images}", "at the threshold"))
    if good.images:
        cells.append(("False alarms", f"{good.above} of {good.images}", "good images, at the threshold"))
    overall = evaluation.get("overall") or {}
    for key, heading, _ in _METRICS:
        if key in _HEADLINE:
            cells.append((heading, _value(overall, key, _reason(key, defective, good), bounds=False), "1 is perfect"))
    items = "".join(
        f"<div><dt>{text(heading)}</dt><dd>{value}<small>{text(unit)}</small></dd></div>"
        for heading, value, unit in cells
    )
    return f'<dl class="headline">{items}</dl>'


def metrics_table(evaluation: Mapping[str, Any], counts: Mapping[str, Count]) -> str:
    """Every metric overall and by kind, and what each means."""
    good = counts.get(GOOD, Count(0, 0))
    rows = [("all defects", evaluation.get("overall") or {}, _defective(counts))]
    by_kind: Mapping[str, Any] = evaluation.get("by_kind") or {}
    rows += [(kind, metrics, counts.get(kind, Count(0, 0))) for kind, metrics in by_kind.items()]
    body = "".join(_row(name, metrics, count, good) for name, metrics, count in rows)
    body += (
        f'<tr><th scope="row">good images</th><td>{good.images}</td><td>{good.above} false</td>'
        f'<td colspan="{len(_METRICS)}"></td></tr>'
    )
    headings = "".join(f'<th scope="col">{text(heading)}</th>' for _, heading, _ in _METRICS)
    meanings = "".join(f"<dt>{text(heading)}</dt><dd>{text(meaning)}</dd>" for _, heading, meaning in _METRICS)
    return (
        '<div class="scroll" role="region" aria-label="Metrics" tabindex="0"><table class="metrics">'
        '<thead><tr><th scope="col">Defect</th><th scope="col">Images</th><th scope="col">Above the threshold</th>'
        f"{headings}</tr></thead><tbody>{body}</tbody></table></div>{_remarks(evaluation, rows, good)}"
        f'<dl class="meanings">{meanings}</dl>'
    )


def _row(name: str, metrics: Mapping[str, Any], count: Count, good: Count) -> str:
    cells = "".join(f"<td>{_value(metrics, key, _reason(key, count, good))}</td>" for key, _, _ in _METRICS)
    found = f"{count.above} found" if count.images else undefined("there are no such images")
    return f'<tr><th scope="row"><bdi>{text(name)}</bdi></th><td>{count.images}</td><td>{found}</td>{cells}</tr>'


def _value(metrics: Mapping[str, Any], key: str, reason: str, *, bounds: bool = True) -> str:
    value = number(metrics.get(key))
    if value is None:
        return undefined(reason)
    bound = number(metrics.get(f"{key}_bound")) if bounds else None
    return f"{value:.4f}" if bound is None else f"{value:.4f}<small>{_bound(bound)}</small>"


def _bound(bound: float) -> str:
    """The bound, rounded upward to the digits shown."""
    tenth_thousandths = -int(-bound * 1e4 // 1)
    return f"\N{PLUS-MINUS SIGN} {max(tenth_thousandths, 1) / 1e4:.4f}"


def _reason(key: str, defective: Count, good: Count) -> str:
    if not good.images:
        return "there are no good test images to compare with"
    if not defective.images:
        return "there are no defective test images"
    if key.startswith("image_"):
        return "it was not computed"
    return "no mask with defective pixels came with these images"


def _remarks(evaluation: Mapping[str, Any], rows: Sequence[tuple[str, Mapping[str, Any], Count]], good: Count) -> str:
    remarks = ["Each kind of defect is compared with all good test images."]
    if any(number(metrics.get(f"{key}_bound")) is not None for _, metrics, _ in rows for key, _, _ in _METRICS):
        remarks.append(
            "Where a \N{PLUS-MINUS SIGN} is shown, pixel scores are counted in narrow classes, and the exact figure is "
            "certain to lie within it."
        )
    missing = {
        _reason(key, count, good)
        for _, metrics, count in rows
        for key, _, _ in _METRICS
        if number(metrics.get(key)) is None
    }
    if missing:
        remarks.append(f"\N{EN DASH} means undefined: {'; '.join(sorted(missing))}.")
    unmasked = evaluation.get("images_without_mask") or 0
    if unmasked:
        remarks.append(f"{counted(unmasked, 'defective image')} came without a mask; the pixel figures leave them out.")
    return f'<p class="remarks">{text(" ".join(remarks))}</p>'


def _defective(counts: Mapping[str, Count]) -> Count:
    found = [count for kind, count in counts.items() if kind != GOOD]
    return Count(sum(count.images for count in found), sum(count.above for count in found))
