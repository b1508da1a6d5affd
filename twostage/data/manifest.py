"""A data set listed in a CSV file."""

import csv
import hashlib
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from twostage.data.listing import Lazy, files_in
from twostage.data.samples import GOOD, Finding, ImageSet, Sample

COLUMNS = ("path", "split", "kind", "mask")


def scan_manifest(manifest: Path) -> tuple[ImageSet, list[Finding]]:
    """Read the images of a manifest, and everything that is wrong with it; no image is opened.

    The first line names the columns path, split, kind and mask, in any order. Relative paths start at the manifest's
    folder. A finding about a row names its line. A train row takes tens of bytes in memory.
    """
    findings: list[Finding] = []
    test: list[Sample] = []
    unmasked: list[tuple[int, Sample]] = []
    files = _NamedFiles()

    def train_paths() -> Iterator[str]:
        for line, row in _rows(manifest, findings):
            sample, problems = _sample(row, manifest.parent, files)
            findings.extend(Finding(manifest, f"line {line}: {problem}", fatal=True) for problem in problems)
            if sample is None:
                continue
            if row["split"] == "train":
                yield row["path"]
                continue
            test.append(sample)
            if sample.kind != GOOD and sample.mask is None:
                unmasked.append((line, sample))

    paths = files_in(manifest.parent, train_paths())
    findings.extend(_about_repeated_files(manifest, files.repeated()))
    findings.extend(_about_masks(manifest, unmasked, some=any(sample.mask for sample in test)))
    if not paths and not any(finding.fatal for finding in findings):
        findings.append(Finding(manifest, "has no row whose split is train; accepted: at least one", fatal=True))
    if not test:
        findings.append(Finding(manifest, "has no row whose split is test: nothing to evaluate on", fatal=False))
    elif not any(sample.kind == GOOD for sample in test):
        problem = f"has no {GOOD} test images: detection cannot be measured without them"
        findings.append(Finding(manifest, problem, fatal=False))
    test.sort(key=lambda sample: sample.path)
    train = Lazy(len(paths), lambda number: Sample(paths[number], GOOD))
    return ImageSet(manifest.stem, train, tuple(test)), findings


def _rows(manifest: Path, findings: list[Finding]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows with their line numbers; rows of a wrong length, and a file that is no such table, become findings."""
    try:
        # utf-8-sig: spreadsheet programs put a byte order mark in front of the first column's name.
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            if sorted(columns) != sorted(COLUMNS):
                found = ", ".join(columns) or "nothing"
                problem = f"line 1: the columns are {found}; accepted: {', '.join(COLUMNS)}, separated by commas"
                findings.append(Finding(manifest, problem, fatal=True))
                return
            for values in reader:
                if not values:
                    continue
                if len(values) != len(columns):
                    problem = f"line {reader.line_num}: has {len(values)} values; accepted: {len(columns)}"
                    findings.append(Finding(manifest, problem, fatal=True))
                    continue
                yield reader.line_num, dict(zip(columns, (value.strip() for value in values), strict=True))
    except OSError as error:
        findings.append(Finding(manifest, f"cannot be read ({error.strerror}); accepted: a CSV file", fatal=True))
    except (UnicodeDecodeError, csv.Error) as error:
        findings.append(Finding(manifest, f"is not a CSV file ({error}); accepted: UTF-8 text with commas", fatal=True))


def _sample(row: dict[str, str], folder: Path, files: "_NamedFiles") -> tuple[Sample | None, list[str]]:
    """What a row says, and what is wrong with it by itself; the files it names join ``files``."""
    problems: list[str] = []
    path = _file("path", row["path"], folder, files, problems) if row["path"] else None
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
    mask = _file("mask", row["mask"], folder, files, problems) if row["mask"] and kind != GOOD else None
    if mask is not None and mask == path:
        problems.append(f"mask is {row['mask']!r}, the image itself; accepted: another file")
    return (None if problems or path is None else Sample(path, kind, mask)), problems


def _file(column: str, value: str, folder: Path, files: "_NamedFiles", problems: list[str]) -> Path | None:
    if "\0" in value:
        problems.append(f"{column} is {value!r}; accepted: a path without null characters")
        return None
    path = folder / value
    if not path.is_file():
        problems.append(f"{column} is {value!r}: there is no file {path}")
        return None
    files.add(path)
    return path


class _NamedFiles:
    """Tells whether a file was named before, in 8 bytes for each."""

    def __init__(self) -> None:
        self._marks = array("Q")

    def add(self, path: Path) -> None:
        self._marks.append(_mark(os.path.normpath(path)))

    def repeated(self) -> set[int]:
        """Marks that several files have, or one that was named several times."""
        marks = np.sort(np.frombuffer(self._marks, dtype=np.uint64))
        return set(marks[1:][marks[1:] == marks[:-1]].tolist())


def _mark(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")


def _about_repeated_files(manifest: Path, marks: set[int]) -> list[Finding]:
    """Every file is named once. ``marks``: of those that may not be."""
    if not marks:
        return []
    findings = []
    first_line: dict[str, int] = {}
    for line, row in _rows(manifest, []):
        for column in ("path",) if row["kind"] == GOOD else ("path", "mask"):
            path = os.path.normpath(manifest.parent / row[column])
            first = first_line.setdefault(path, line) if _mark(path) in marks else line
            if first != line:
                problem = f"{column} is {row[column]!r}, which line {first} names already; accepted: every file once"
                findings.append(Finding(manifest, f"line {line}: {problem}", fatal=True))
    return findings


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
