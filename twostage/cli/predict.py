"""twostage predict"""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from twostage.cli.evaluate import load_run
from twostage.cli.interruption import command_line, stopping
from twostage.cli.outcome import map_range
from twostage.cli.terminal import TerminalProgress, print_result
from twostage.detector import Detector, Prediction
from twostage.errors import ConfigError, DataError, OutputError
from twostage.files import write_text_atomic
from twostage.progress import Progress
from twostage.report import heat_map, overlay, save_png
from twostage.run_folder import RunFolder

HEADINGS = ("path", "score", "threshold", "verdict")
DEFECTIVE, GOOD, UNREADABLE = "defective", "good", "unreadable"
_LITTER = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Score every image in a folder and its subfolders.

    The output folder receives predictions.csv (path, score, threshold, verdict: good, defective or unreadable), and
    for every image heatmaps/<path>.png and overlays/<path>.png. Each row is written as soon as its image is scored.
    Exit status 1 where an image could not be read.
    """

    detector: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """Folder of a run, or of a saved detector."""
    images: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="IMAGES")]]
    """Folder of images."""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """Folder for the results."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Score only what predictions.csv does not hold yet."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace an earlier predictions.csv and its pictures."""
    pictures: tyro.conf.FlagCreatePairsOff[bool] = True
    """Whether heat maps and overlays are written."""
    device: str = "auto"
    """What computes: cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    lpips_weights: Path | None = None
    """File or folder with the LPIPS weights, if not where they were at training."""

    def execute(self) -> int:
        """Score the images; 1 where one was unreadable.

        Raises:
            TwostageError: the detector, the folder of images or the output folder cannot be used.
            Stopped: by Ctrl-C.
        """
        if self.resume and self.overwrite:
            raise ConfigError("--resume and --overwrite are given; accepted: one of them")
        paths = find_images(self.images, leave_out=self.out)
        with stopping(self._how_to_go_on), TerminalProgress() as progress:
            detector = self._load()
            table = PredictionTable(self.out, resume=self.resume, overwrite=self.overwrite)
            remaining = [path for path in paths if path.relative_to(self.images).as_posix() not in table.rows]
            self._score(detector, remaining, table, progress)
        return self._summarise(table)

    def _load(self) -> Detector:
        run = RunFolder(self.detector)
        if run.config.is_file():
            return load_run(run, lpips_weights=self.lpips_weights, device=self.device)
        return Detector.load(self.detector, lpips_weights=self.lpips_weights, device=self.device)

    def _score(self, detector: Detector, paths: Sequence[Path], table: "PredictionTable", progress: Progress) -> None:
        threshold = detector.calibration.threshold
        table.require_threshold(threshold)
        for done, (path, found) in enumerate(detector.predict_files(paths), start=1):
            name = path.relative_to(self.images)
            if isinstance(found, DataError):
                progress.note(f"unreadable: {found}")
                table.add(name, None, threshold, UNREADABLE)
            else:
                if self.pictures:
                    self._draw(detector, found, name)
                table.add(name, found.score, threshold, DEFECTIVE if found.defective else GOOD)
            progress.update("scoring", done, len(paths))

    def _draw(self, detector: Detector, prediction: Prediction, name: Path) -> None:
        low, high = map_range(detector.calibration)
        file = name if name.suffix.lower() == ".png" else name.with_name(f"{name.name}.png")
        heat = heat_map(prediction.score_map, low, high)
        laid_over = overlay(prediction.image, prediction.score_map, low, high, threshold=detector.calibration.threshold)
        for folder, picture in (("heatmaps", heat), ("overlays", laid_over)):
            target = self.out / folder / file
            make_folder(target.parent)
            save_png(target, picture)

    def _summarise(self, table: "PredictionTable") -> int:
        unreadable = [path for path, row in table.rows.items() if row[3] == UNREADABLE]
        defective = sum(row[3] == DEFECTIVE for row in table.rows.values())
        print_result(f"{len(table.rows)} images: {defective} defective, {len(unreadable)} unreadable")
        for path in unreadable:
            print_result(f"  unreadable: {path}")
        print_result(f"table: {table.path}")
        return 1 if unreadable else 0

    def _how_to_go_on(self) -> str:
        if not (self.out / "predictions.csv").is_file():
            return "Nothing was written."
        pictures = () if self.pictures else ("--no-pictures",)
        line = command_line("predict", self.detector, self.images, self.out, *pictures, "--resume")
        return f"Every finished image is in the table. Continue with:\n  {line}"


class PredictionTable:
    """The CSV file: a row for every image, on the disk as soon as it is added.

    Args:
        folder: where predictions.csv lies; made if missing.
        resume: keep its rows, those of unreadable images apart, which are tried again.
        overwrite: start it anew.

    Raises:
        OutputError: the folder cannot be written, or holds a table and neither option is set; or the table to resume is
            none of this program.
    """

    def __init__(self, folder: Path, *, resume: bool, overwrite: bool) -> None:
        self.path = folder / "predictions.csv"
        self.rows: dict[str, tuple[str, ...]] = {}
        make_folder(folder)
        if self.path.exists() and resume:
            kept = (row for row in _read_rows(self.path) if row[3] != UNREADABLE)
            self.rows = {row[0]: row for row in kept}
        elif self.path.exists() and not overwrite:
            raise OutputError(
                f"{self.path} exists; accepted: another folder, continuing it (--resume), or replacing it (--overwrite)"
            )
        write_text_atomic(self.path, "".join(map(_line, (HEADINGS, *self.rows.values()))))

    def require_threshold(self, threshold: float) -> None:
        """Raises:
        OutputError: rows that were kept are of a detector with another threshold.
        """
        others = {row[2] for row in self.rows.values()} - {repr(threshold)}
        if others:
            raise OutputError(
                f"{self.path} holds rows with the threshold {others.pop()}, this detector's is {threshold!r}; "
                "accepted: the same detector, or --overwrite"
            )

    def add(self, name: Path, score: float | None, threshold: float, verdict: str) -> None:
        """Append a row."""
        row = (name.as_posix(), "" if score is None else repr(score), repr(threshold), verdict)
        with self.path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(_line(row))
        self.rows[row[0]] = row


def find_images(folder: Path, *, leave_out: Path) -> list[Path]:
    """Every file in a folder and its subfolders, sorted; hidden ones and those under ``leave_out`` apart.

    Raises:
        DataError: there is no such folder, or no file in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; accepted: a folder of images")
    left_out = leave_out.absolute()
    found = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".") and (here / name).absolute() != left_out]
        found += [here / name for name in files if not name.startswith(".") and name.casefold() not in _LITTER]
    if not found:
        raise DataError(f"{folder} holds no file; accepted: a folder of images")
    return sorted(found)


def make_folder(path: Path) -> None:
    """Raises:
    OutputError: the folder is not there and cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def _line(row: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


def _read_rows(path: Path) -> list[tuple[str, ...]]:
    """Whole rows; a last one that a kill cut short is left out."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    headings, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1])) or [()]
    if tuple(headings) != HEADINGS or any(len(row) != len(HEADINGS) for row in rows):
        raise OutputError(f"{path} is no table of predictions; accepted: another folder, or --overwrite")
    return [tuple(row) for row in rows]
