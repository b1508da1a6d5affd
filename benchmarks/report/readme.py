"""The README's table: made from rows, so that no figure in it can be made up."""

import re
from collections.abc import Iterable, Sequence

from benchmarks.environment import slug
from benchmarks.report.scaling import fits
from benchmarks.report.tables import comparisons, origin, three_digits, time
from benchmarks.rows import Row

START, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
NOTHING_YET = "No run is recorded yet: `make bench`, then `python -m benchmarks report`."
_RUN = re.compile(r"run `([^`]+)`")


def refreshed(text: str, rows: Sequence[Row]) -> str:
    """``text`` with what stands between its markers made anew from ``rows``."""
    before, _, after = _parts(text)
    return f"{before}{START}\n{render(rows)}\n{END}{after}"


def stale(text: str, rows: Iterable[Row]) -> str | None:
    """What between the markers of ``text`` does not follow from ``rows``; None where all does."""
    _, stands, _ = _parts(text)
    runs = _RUN.findall(stands)
    of_runs = [row for row in rows if row["run"] in runs]
    missing = set(runs) - {row["run"] for row in of_runs}
    if missing:
        return f"there are no rows of run {', '.join(sorted(missing))}"
    expected = render(of_runs).splitlines()
    for line in stands.strip().splitlines():
        if line not in expected:
            return f"not in the rows: {line}"
    return None if stands.strip().splitlines() == expected else "lines are missing"


def render(rows: Sequence[Row]) -> str:
    """Markdown: a table and the fits for each device."""
    parts = []
    for device in dict.fromkeys(row["device"] for row in rows):
        parts.append(_render_device([row for row in rows if row["device"] == device]))
    return "\n\n".join(parts) or NOTHING_YET


def _render_device(rows: Sequence[Row]) -> str:
    device = rows[0]["device"]
    lines = [
        f"{origin(rows[0])}; run `{rows[0]['run']}` of `benchmarks/results/{slug(device)}.jsonl`:",
        "",
        "| | size | here | share of the ceiling | fastest of the others | times as fast |",
        "|---|---|---:|---:|---|---:|",
    ]
    found = comparisons(rows)
    for comparison in found:
        if not comparison.in_groups("scaling"):
            ours, peers = comparison.ours, comparison.peers
            ceiling = f"{ours['floor_seconds'] / ours['seconds']:.0%}" if ours["floor_seconds"] else ""
            other = f"{time(peers[0]['seconds'])}, {peers[0]['contender']}" if peers else ""
            ratio = three_digits(peers[0]["seconds"] / ours["seconds"]) if peers else ""
            cells = (comparison.name, comparison.size, time(ours["seconds"]), ceiling, other, ratio)
            lines.append(f"| {' | '.join(cells)} |")
    sentences = [fit.sentence() for fit in fits(found)]
    return "\n".join([*lines, *(["", *(f"* {sentence}" for sentence in sentences)] if sentences else [])])


def _parts(text: str) -> tuple[str, str, str]:
    before, start, rest = text.partition(START)
    between, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the README holds no {START} ... {END}")
    return before, between, after
