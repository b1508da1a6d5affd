"""Rows of results: one JSON object a line, appended and never changed."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def read(folder: Path) -> list[Row]:
    """The benchmark rows of every file in ``folder``, in order; lines of other kinds are passed over."""
    rows = [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [row for row in rows if "run" in row and "contender" in row]


def latest_run(rows: Iterable[Row], device_type: str | None = None) -> list[Row]:
    """The rows of the newest run of each device that was timed whole (not a comparison of revisions)."""
    newest: dict[str, str] = {}
    kept = [row for row in rows if device_type in (None, row["device_type"]) and "against" not in row]
    for row in kept:
        newest[row["device"]] = max(row["run"], newest.get(row["device"], ""))
    return [row for row in kept if row["run"] == newest[row["device"]]]
