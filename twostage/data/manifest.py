"""A data set listed in a CSV file."""

import csv
import os
from pathlib import Path

from twostage.data.samples import GOOD, Finding, ImageSet, Sample

COLUMNS = ("path", "split", "kind", "mask")


def scan_manifest(manifest: Path) -> tuple[ImageSet, list[Finding]]:
    """Read the images of a manifest, and everything that is wrong with it; no image is opened.

    The first line names the columns path, split, kind and mask, in any order. Relative paths start at the manifest's
    folder. A finding about a row names its line.
    """
    findings: list[Finding] = []
    rows = _read_rows(manifest, findings)
    checker = _RowChecker(manifest.parent)
    samples: dict[str, list[Sample]] = {"train": [], "test": []}
    unmasked: list[tuple[int, Sample]] = []
    for line, row in rows:
        sample, problems = checker.check(line, row)
        findings.extend(Finding(manifest, f"line {line}: {problem}", fatal=True) for problem in problems)
        if sample is None:
            continue
        samples[row["split"]].append(sample)
        if sample.kind != GOOD and sample.mask is None:
            unmasked.append((line, sample))
    test = samples["test"]
    findings.extend(_about_masks(manifest, unmasked, some=any(sample.mask for sample in test)))
    if not samples["train"] and not any(finding.fatal for finding in findings):
        findings.append(Finding(manifest, "has no row whose split is train; accepted: at least one", fatal=True))
    if not test:
        findings.append(Finding(manifest, "has no row whose split is test: nothing to evaluate on", fatal=False))
    elif not any(sample.kind == GOOD for sample in test):
        problem = f"has no {GOOD} test images: detection cannot be measured without them"
        findings.append(Finding(manifest, problem, fatal=False))
    ordered = {split: tuple(sorted(found, key=lambda sample: sample.path)) for split, found in samples.items()}
    return ImageSet(manifest.stem, ordered["train"], ordered["test"]), findings


def _read_rows(manifest: Path, findings: list[Finding]) -> list[tuple[int, dict[str, str]]]:
    """The rows with their line numbers; rows of a wrong length, and a file that is no such table, become findings."""
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        # utf-8-sig: spreadsheet programs put a byte order mark in front of the first column's name.
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            if sorted(columns) != sorted(COLUMNS):
                found = ", ".join(columns) or "nothing"
                problem = f"line 1: the columns are {found}; accepted: {', '.join(COLUMNS)}, separated by commas"
                findings.append(Finding(manifest, problem, fatal=True))
                return []
            for values in reader:
                if not values:
                    continue
                if len(values) != len(columns):
                    problem = f"line {reader.line_num}: has {len(values)} values; accepted: {len(columns)}"
                    findings.append(Finding(manifest, problem, fatal=True))
                    continue
                row = dict(zip(columns, (value.strip() for value in values), strict=True))
                rows.append((reader.line_num, row))
    except OSError as error:
        findings.append(Finding(manifest, f"cannot be read ({error.strerror}); accepted: a CSV file", fatal=True))
    except (UnicodeDecodeError, csv.Error) as error:
        findings.append(Finding(manifest, f"is not a CSV file ({error}); accepted: UTF-8 text with commas", fatal=True))
    return rows


class _RowChecker:
    """Turns rows into samples, and remembers which image and mask stood on which line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._line_of: dict[str, int] = {}

    def check(self, line: int, row: dict[str, str]) -> tuple[Sample | None, list[str]]:
        problems: list[str] = []
        path = self._file("path", row["path"], line, problems) if row["path"] else None
        if not row["path"]:
            problems.append("path is empty; accepted: an image file")
        split, kind = row["split"], row["kind"]
        if split not in ("train", "test"):
            problems.append(f"split is {split!r}; accepted: train, test")
        if not kind or kind.startswith(".") or set(kind) & set("/\\"):
            problems.append(f"kind is {kind!r}; accepted: {GOOD}, or the name of a defect without slashes")
        elif split == "train" and kind != GOOD:
            problems.append(f"kind is {kind!r} in a train row; accepted: {GOOD}")
        if row["mask"] and kind == GOOD:
            problems.append(f"mask is {row['mask']!r} in a {GOOD} row; accepted: empty")
        mask = self._file("mask", row["mask"], line, problems) if row["mask"] and kind != GOOD else None
        if mask is not None and mask == path:
            problems.append(f"mask is {row['mask']!r}, the image itself; accepted: another file")
        return (None if problems or path is None else Sample(path, kind, mask)), problems

    def _file(self, column: str, value: str, line: int, problems: list[str]) -> Path | None:
        if "\0" in value:
            problems.append(f"{column} is {value!r}; accepted: a path without null characters")
            return None
        path = self._folder / value
        if not path.is_file():
            problems.append(f"{column} is {value!r}: there is no file {path}")
            return None
        first = self._line_of.setdefault(os.path.normpath(path), line)
        if first != line:
            problems.append(f"{column} is {value!r}, which line {first} names already; accepted: every file once")
            return None
        return path


def _about_masks(manifest: Path, unmasked: list[tuple[int, Sample]], *, some: bool) -> list[Finding]:
    """Masks for all defective images, or for none."""
    if not unmasked:
        return []
    if not some:
        return [Finding(manifest, "no defective image has a mask: pixels cannot be evaluated", fatal=False)]
    return [
        Finding(manifest, f"line {line}: {sample.path} has no mask, others have; accepted: a mask file", fatal=True)
        for line, sample in unmasked
    ]
