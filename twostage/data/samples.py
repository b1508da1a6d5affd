"""What a data set is made of, and what can be wrong with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from twostage.errors import DataError

GOOD = "good"
"""The kind of every image without a defect."""


@dataclass(frozen=True)
class Sample:
    """One image on disk."""

    path: Path
    kind: str
    """``good``, or the name of the defect."""
    mask: Path | None = None
    """The pixels of the defect; None for good images, and where a data set comes without masks."""


@dataclass(frozen=True)
class ImageSet:
    """The images of one category, in the order of their names."""

    name: str
    train: Sequence[Sample]
    test: tuple[Sample, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (``fatal``) or worth knowing (a note) about one file or folder."""

    path: Path
    problem: str
    """What is wrong and what is accepted."""
    fatal: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def finding_of(path: Path, error: DataError) -> Finding:
    """The fatal finding that says about ``path`` what ``error`` says, naming the path once."""
    return Finding(path, str(error).removeprefix(f"{path}: "), fatal=True)


def require_clean(findings: Iterable[Finding]) -> None:
    """Return where no finding is fatal.

    Raises:
        DataError: at least one finding is fatal; the message lists every one that is, a line each.
    """
    fatal = [finding for finding in findings if finding.fatal]
    if len(fatal) == 1:
        raise DataError(str(fatal[0]))
    if fatal:
        raise DataError("\n  ".join([f"{len(fatal)} problems in the data:", *map(str, fatal)]))
