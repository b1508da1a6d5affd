"""twostage ablate"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from twostage.cli.interruption import stopping
from twostage.cli.settings import Configured
from twostage.cli.terminal import TerminalProgress, print_result
from twostage.cli.trials import run_trials
from twostage.comparison import METRICS, Row, markdown_table, mean_and_spread, require_test_images, trials_of
from twostage.data import find_samples
from twostage.errors import ConfigError
from twostage.files import write_text_atomic
from twostage.presets import TABLE_2, Category, Method


@dataclass(frozen=True, kw_only=True)
class Ablate(Configured):
    """Train the columns of the paper's Table 2 on one data set, with several seeds, and tabulate what each reaches.

    Results are kept after every run: the same command continues an interrupted ablation. The table goes to table.md in
    the output folder, the single results to results.jsonl, the runs to runs.
    """

    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """Folder for the results: a new one, or that of the same ablation."""
    methods: tuple[Method, ...] = TABLE_2
    """Which columns, in which order."""
    seeds: int = 3
    """Runs of every method: with --seed and the seeds after it."""
    jobs: int = 1
    """Processes to run in; they share the processor cores."""
    preset: tyro.conf.UseAppendAction[tuple[Category, ...]] = ()
    """The weights of AW-SSIM for a category of the paper. Changes the TOML file's settings; flags change both."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Drop the results that the folder holds of these runs."""

    def presets(self) -> tuple[str, ...]:
        return self.preset

    def execute(self) -> int:
        """Run what is missing and print the table.

        Raises:
            ConfigError: ``methods`` is empty, or ``seeds`` or ``jobs`` is below 1.
            TwostageError: as :func:`twostage.comparison.run_trial`.
            Stopped: by Ctrl-C.
        """
        if self.seeds < 1 or not self.methods:
            raise ConfigError(f"seeds is {self.seeds}, methods are {self.methods}; accepted: at least 1 of each")
        with stopping(lambda: "Finished runs are kept; the same command continues."), TerminalProgress() as progress:
            require_test_images(self.settings)
            name = find_samples(self.settings.data).name
            trials = trials_of(name, self.settings, self.methods, self.seeds)
            rows = run_trials(trials, self.out, jobs=self.jobs, overwrite=self.overwrite, progress=progress)
            table = ablation_table(name, self.methods, rows)
            write_text_atomic(self.out / "table.md", table)
        print_result(table + f"\ntable: {self.out / 'table.md'}")
        return 0


def ablation_table(name: str, methods: Sequence[str], rows: Sequence[Row]) -> str:
    """Markdown: a column for every method, a row for every metric, in percent."""
    seeds = len({row.seed for row in rows})
    body = [
        [heading, *(mean_and_spread((row for row in rows if row.method == method), metric) for method in methods)]
        for metric, heading in METRICS.items()
    ]
    spread = "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    return markdown_table([name, *methods], body) + f"\nIn percent, {spread}.\n"
