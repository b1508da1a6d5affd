"""twostage reproduce"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated

import tyro

from twostage.cli.interruption import stopping
from twostage.cli.settings import Configured
from twostage.cli.terminal import TerminalProgress, print_result
from twostage.cli.trials import run_trials
from twostage.comparison import Row, Trial, markdown_table, mean_and_spread, require_test_images, trials_of
from twostage.config import Config
from twostage.errors import ConfigError, DataError
from twostage.files import write_text_atomic
from twostage.presets import CATEGORIES, Method, apply_category

IMAGE_SIZE = 512
PAPER_OURS = {"tile": 96.56, "wood": 97.10, "leather": 98.76, "carpet": 99.20, "hazelnut": 98.89, "pill": 95.64}
PAPER_AE_SSIM = {"tile": 59.0, "wood": 73.0, "leather": 78.0, "carpet": 87.0, "hazelnut": 96.6, "pill": 89.5}
"""Table 1, AuROC in percent."""


@dataclass(frozen=True, kw_only=True)
class Reproduce(Configured):
    """Train the six categories of the paper's Table 1 and put our pixel AuROC beside the paper's.

    ROOT is MVTec AD: a folder with tile, wood, leather, carpet, hazelnut and pill; categories that are not there are
    named and left out. Images have 512 pixels on their shorter side if --data.image-size says nothing else; every
    category has its own weights of AW-SSIM. Results are kept after every run: the same command continues.
    """

    root: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="ROOT")]]
    """Folder of MVTec AD."""
    out: Path = Path("reproduction")
    """Folder for the results: a new one, or that of the same reproduction."""
    methods: tuple[Method, ...] = ("two-stage",)
    """What is trained, a column each; add ae-ssim for the baseline by the same code."""
    seeds: int = 1
    """Runs of every category and method: with --seed and the seeds after it."""
    jobs: int = 1
    """Processes to run in; they share the processor cores."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Drop the results that the folder holds of these runs."""

    def starting_config(self) -> Config:
        config = super().starting_config()
        return replace(config, data=replace(config.data, image_size=IMAGE_SIZE))

    def execute(self) -> int:
        """Run what is missing and print the table.

        Raises:
            ConfigError: ``methods`` is empty, ``seeds`` or ``jobs`` is below 1, or the settings name a data set.
            DataError: none of the six categories is there.
            TwostageError: as :func:`twostage.comparison.run_trial`.
            Stopped: by Ctrl-C.
        """
        if self.seeds < 1 or not self.methods:
            raise ConfigError(f"seeds is {self.seeds}, methods are {self.methods}; accepted: at least 1 of each")
        with stopping(lambda: "Finished runs are kept; the same command continues."), TerminalProgress() as progress:
            trials, missing = self._trials()
            if missing:
                progress.note(f"not in {self.root}, left out: {', '.join(missing)}")
            rows = run_trials(trials, self.out, jobs=self.jobs, overwrite=self.overwrite, progress=progress)
            table = reproduction_table(self.methods, rows, missing)
            write_text_atomic(self.out / "table.md", table)
        print_result(table + f"\ntable: {self.out / 'table.md'}")
        return 0

    def _trials(self) -> tuple[list[Trial], list[str]]:
        """What to run, and the categories that are not there."""
        data = self.settings.data
        if data.root is not None or data.manifest is not None:
            raise ConfigError("data.root or data.manifest is given; accepted: the folder of MVTec AD as ROOT alone")
        trials: list[Trial] = []
        missing: list[str] = []
        for category in CATEGORIES:
            root = (self.root / category).absolute()
            if not root.is_dir():
                missing.append(category)
                continue
            config = apply_category(replace(self.settings, data=replace(data, root=root)), category)
            require_test_images(config)
            trials += trials_of(category, config, self.methods, self.seeds)
        if not trials:
            raise DataError(f"{self.root} holds none of {', '.join(CATEGORIES)}; accepted: the folder of MVTec AD")
        return trials, missing


def reproduction_table(methods: Sequence[str], rows: Sequence[Row], missing: Sequence[str]) -> str:
    """Markdown: a row for every category, pixel AuROC in percent, the paper's columns last."""
    present = [category for category in CATEGORIES if category not in missing]
    body = []
    for category in present:
        ours = [
            mean_and_spread((row for row in rows if (row.data, row.method) == (category, method)), "pixel_auroc")
            for method in methods
        ]
        body.append([category, *ours, f"{PAPER_OURS[category]:.2f}", f"{PAPER_AE_SSIM[category]:.2f}"])
    paper = [f"{mean(column[category] for category in present):.2f}" for column in (PAPER_OURS, PAPER_AE_SSIM)]
    body.append(["average", *(_average(rows, present, method) for method in methods), *paper])
    headings = ["pixel AuROC in %", *(f"{method}, measured" for method in methods), "paper: Ours", "paper: AE-SSIM"]
    note = f"\nNot there, and in no average: {', '.join(missing)}.\n" if missing else ""
    return markdown_table(headings, body) + note


def _average(rows: Sequence[Row], categories: Sequence[str], method: str) -> str:
    """The mean of the categories' means."""
    means = []
    for category in categories:
        values = [row.pixel_auroc for row in rows if (row.data, row.method) == (category, method)]
        if not values or None in values:
            return "–"  # noqa: RUF001
        means.append(mean(value for value in values if value is not None))
    return f"{100 * mean(means):.2f}"
