"""Methods and seeds trained side by side: what was run is kept, and what is missing is run."""

import hashlib
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

from twostage.config import Config
from twostage.configfile import described
from twostage.data import GOOD, find_samples
from twostage.detector import Detector
from twostage.errors import DataError, OutputError
from twostage.files import write_text_atomic
from twostage.presets import apply_method
from twostage.progress import Progress
from twostage.run_folder import RunFolder

# What may differ between the parts of one comparison without changing its figures.
_NOT_IN_FINGERPRINT = ("checkpoint_every", "device", "lpips_weights", "data.home", "data.cache")
METRICS = {"pixel_auroc": "pixel AuROC", "image_auroc": "image AuROC", "aupro": "AUPRO"}


@dataclass(frozen=True)
class Trial:
    """One training and its evaluation."""

    data: str
    """Name of the data set."""
    method: str
    config: Config
    """With the method applied, and with the seed."""

    @property
    def name(self) -> str:
        return f"{self.data}-{self.method}-seed{self.config.seed}"

    @property
    def fingerprint(self) -> str:
        """Of everything that the figures depend on."""
        values = described(self.config, _NOT_IN_FINGERPRINT)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Row:
    """What a trial came to. A metric is None where it is undefined."""

    data: str
    method: str
    seed: int
    pixel_auroc: float | None
    image_auroc: float | None
    aupro: float | None
    seconds: float
    """Of training, calibration and evaluation, in the session that finished them."""
    fingerprint: str

    @property
    def key(self) -> tuple[str, str, int]:
        return self.data, self.method, self.seed


def trials_of(name: str, config: Config, methods: Iterable[str], seeds: int) -> list[Trial]:
    """Every method with every seed, ``config.seed`` and those after it, on one data set.

    Raises:
        ConfigError: there is no such method.
    """
    applied = {method: apply_method(config, method) for method in methods}
    return [
        Trial(name, method, replace(with_method, seed=config.seed + offset))
        for offset in range(seeds)
        for method, with_method in applied.items()
    ]


def require_test_images(config: Config) -> None:
    """Raises:
    DataError: the data set cannot be read, or has no good or no defective test images to compare methods by.
    """
    images = find_samples(config.data)
    kinds = {sample.kind for sample in images.test}
    if GOOD not in kinds or kinds == {GOOD}:
        found = ", ".join(sorted(kinds)) or "none"
        raise DataError(
            f"{images.name} has test images of these kinds: {found}; accepted: good and at least one defect"
        )


def run_trial(trial: Trial, folder: Path, *, progress: Progress) -> Row:
    """Train and evaluate; a run that was interrupted in ``folder`` continues from its last checkpoint.

    Raises:
        TwostageError: as :meth:`twostage.Detector.fit`.
        TrainingInterrupted: by Ctrl-C.
    """
    started = perf_counter()
    run = RunFolder(folder / trial.name)
    detector = Detector.fit(
        trial.config, run=run.path, resume=run.config.is_file(), progress=_Labelled(progress, trial.name)
    )
    detector.save(run.detector)
    found = detector.evaluate(find_samples(trial.config.data).test, progress=_Labelled(progress, trial.name))
    metrics = found.to_dict()
    write_text_atomic(run.evaluation, json.dumps({"metrics": metrics}) + "\n")
    figures = {name: metrics["overall"][name] for name in METRICS}
    return Row(
        trial.data,
        trial.method,
        trial.config.seed,
        **figures,
        seconds=perf_counter() - started,
        fingerprint=trial.fingerprint,
    )


class Results:
    """The rows of a comparison in a file of JSON lines.

    Args:
        path: of the file; it may be missing.

    Raises:
        OutputError: the file is not of this form.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.exists():
            try:
                self.rows = [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
            except (ValueError, TypeError) as error:
                raise OutputError(f"{path} holds no results of a comparison: {error}") from error

    def add(self, row: Row) -> None:
        """Keep a row, on the disk too.

        Raises:
            OutputError: the file cannot be written.
        """
        rows = [*self.rows, row]
        write_text_atomic(self.path, "".join(json.dumps(asdict(kept)) + "\n" for kept in rows))
        self.rows = rows

    def missing(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials without a row.

        Raises:
            OutputError: a row is of a trial with other settings.
        """
        known = {row.key: row.fingerprint for row in self.rows}
        missing = []
        for trial in trials:
            found = known.get((trial.data, trial.method, trial.config.seed))
            if found is None:
                missing.append(trial)
            elif found != trial.fingerprint:
                raise OutputError(
                    f"{self.path} holds {trial.name} with other settings; accepted: the same settings, another folder, "
                    "or replacing it (--overwrite)"
                )
        return missing


def mean_and_spread(rows: Iterable[Row], metric: str) -> str:
    """A metric in percent: the mean over seeds, and from two seeds on the sample standard deviation."""
    values = [100 * value for row in rows if (value := getattr(row, metric)) is not None]
    if not values:
        return "–"  # noqa: RUF001
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, all others to the right."""
    lines = [headings, [":--", *["--:"] * (len(headings) - 1)], *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


class _Labelled(Progress):
    """Says whose work it is."""

    def __init__(self, outer: Progress, label: str) -> None:
        self.outer = outer
        self.label = label

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.outer.update(f"{self.label}: {task}", done, total, detail)

    def note(self, message: str) -> None:
        self.outer.note(f"{self.label}: {message}")
