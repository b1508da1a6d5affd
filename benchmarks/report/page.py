"""One HTML page of a run, beside its pictures."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from benchmarks.report.scaling import fits
from benchmarks.report.tables import Comparison, ceilings, comparisons, origin, three_digits, time
from benchmarks.rows import Row

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
td:first-child, th:first-child { text-align: left; }
tr.ours { font-weight: 600; } tr.yardstick { opacity: .7; }
img { max-width: 100%; background: #fff; border-radius: 4px; margin: .5rem 0; }
h2 { margin-top: 2.5rem; } h3 { margin-bottom: .3rem; } p.absent { opacity: .7; margin: .2rem 0; }
"""
_HEADINGS = ("", "median", "20 % to 80 %", "times ours", "of the ceiling", "peak memory", "error, of what is allowed")


def write(rows: Sequence[Row], pictures: Sequence[Path], path: Path) -> Path:
    """Write the page to ``path``; ``pictures`` lie in the same folder."""
    ceiling, found = ceilings(rows), comparisons(rows)
    images = "".join(f'<img src="{escape(picture.name)}" alt="{escape(picture.stem)}">' for picture in pictures)
    sentences = "".join(f"<li>{escape(fit.sentence())}</li>" for fit in fits(found))
    bfloat16 = ceiling["bfloat16_multiply_adds_per_second"]
    tensor_cores = f", {bfloat16 / 1e9:.0f} billion in bfloat16" if bfloat16 else ""
    dirty = "; the tree differed from that commit" if ceiling["dirty"] else ""
    path.write_text(
        f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Benchmarks on {escape(ceiling["device"])}</title>
<style>{_STYLE}</style>
<h1>Benchmarks on {escape(ceiling["device"])}</h1>
<p>{escape(origin(ceiling))}. Run {escape(ceiling["run"])}{dirty}.
Load average before the start: {ceiling["load"]:.2f}.
Measured ceilings: {ceiling["bytes_per_second"] / 1e9:.1f} GB/s copied,
{ceiling["multiply_adds_per_second"] / 1e9:.0f} billion float32 multiply-adds a second{tensor_cores}.</p>
<p>Every implementation of ours was checked against the float64 reference before it was timed, every other one for doing
the same work. Contenders took turns; times are of one call.</p>
{images}
{"<h2>Scaling</h2><ul>" + sentences + "</ul>" if sentences else ""}
<h2>All times</h2>
{"".join(_table(comparison) for comparison in found if not comparison.in_groups("scaling"))}
</html>
""",
        encoding="utf-8",
    )
    return path


def _table(comparison: Comparison) -> str:
    lines = "".join(_line(row, comparison.ours) for row in comparison.timed)
    heads = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    absent = "".join(
        f'<p class="absent">{escape(row["contender"])}: {escape(row["absent"])}</p>' for row in comparison.absent
    )
    title = escape(f"{comparison.name} {comparison.size}")
    return f"<h3>{title}</h3><table><tr>{heads}</tr>{lines}</table>{absent}"


def _line(row: Row, ours: Row) -> str:
    version = f" {row['version']}" if row["version"] else ""
    ceiling = f"{row['floor_seconds'] / row['seconds']:.1%}" if row["floor_seconds"] else ""
    memory = f"{row['peak_bytes'] / 2**20:.1f} MiB" if row["peak_bytes"] is not None else ""
    error = f"{row['error_of_allowed']:.2g}" if row["role"] != "yardstick" else "not checked"
    cells = (
        f"{row['contender']}{version}",
        time(row["seconds"]),
        f"{time(row['p20'])} to {time(row['p80'])}",
        three_digits(row["seconds"] / ours["seconds"]),
        ceiling,
        memory,
        error,
    )
    return f'<tr class="{row["role"]}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
