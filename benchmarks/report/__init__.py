"""Plots, tables and the README's figures, all from rows."""

from pathlib import Path

from benchmarks import ROOT
from benchmarks.environment import slug
from benchmarks.report import page, plots, readme
from benchmarks.rows import latest_run, read

README = ROOT / "README.md"


def write_reports(results: Path, readme_file: Path | None = README) -> list[Path]:
    """For the newest run of every device in ``results``: a folder with plots and ``report.html``.

    Args:
        readme_file: whose table is refreshed; only from the project's own results.

    Returns:
        What was written.
    """
    newest = latest_run(read(results))
    written = []
    for device in sorted({row["device"] for row in newest}):
        rows = [row for row in newest if row["device"] == device]
        folder = results / slug(device)
        pictures = plots.draw(rows, folder)
        written += [*pictures, page.write(rows, pictures, folder / "report.html")]
    if readme_file is not None and newest and results.resolve().is_relative_to(ROOT / "benchmarks"):
        readme_file.write_text(readme.refreshed(readme_file.read_text(encoding="utf-8"), newest), encoding="utf-8")
        written.append(readme_file)
    return written
