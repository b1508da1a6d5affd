"""Run the trials of a comparison, one after another or several at once."""

import multiprocessing
import os
import queue
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from twostage.comparison import Results, Row, Trial, run_trial
from twostage.errors import ConfigError, OutputError, TwostageError
from twostage.progress import Progress
from twostage.run_folder import RunFolder

_SECONDS_BETWEEN_NEWS = 0.5


def run_trials(trials: Sequence[Trial], folder: Path, *, jobs: int, overwrite: bool, progress: Progress) -> list[Row]:
    """Run what ``folder`` holds no result of yet; each result is kept in results.jsonl as soon as it is there.

    Args:
        folder: for the results, and for the runs in ``runs``.
        jobs: processes to run in, with the threads divided between them; 1 runs in this one.
        overwrite: drop the results and the runs of these trials first.

    Returns:
        The results in the order of the trials.

    Raises:
        ConfigError: ``jobs`` is below 1.
        TwostageError: as :func:`twostage.comparison.run_trial`; results so far are kept.
        KeyboardInterrupt: Ctrl-C; every run saved its finished steps.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}; accepted: at least 1")
    path, runs = folder / "results.jsonl", folder / "runs"
    try:
        if not path.exists() and folder.exists() and any(entry != runs for entry in folder.iterdir()):
            raise OutputError(
                f"{folder} holds files and no comparison; accepted: a new or empty folder, or a comparison's"
            )
        if overwrite:
            _remove(path, [RunFolder(runs / trial.name) for trial in trials])
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error
    results = Results(path)
    missing = results.missing(trials)
    if len(missing) < len(trials):
        progress.note(f"{len(trials) - len(missing)} of {len(trials)} runs are finished already")
    if min(jobs, len(missing)) > 1:
        run_in_processes(missing, runs, jobs, results, progress)
    elif missing:
        _run_here(missing, runs, results, progress)
    by_key = {row.key: row for row in results.rows}
    return [by_key[trial.data, trial.method, trial.config.seed] for trial in trials]


def _remove(results: Path, runs: Sequence[RunFolder]) -> None:
    results.unlink(missing_ok=True)
    for run in runs:
        if run.config.is_file():
            shutil.rmtree(run.path)


def _run_here(trials: Sequence[Trial], runs: Path, results: Results, progress: Progress) -> None:
    for done, trial in enumerate(trials):
        progress.update("runs", done, len(trials), trial.name)
        results.add(run_trial(trial, runs, progress=progress))
    progress.update("runs", len(trials), len(trials))


def run_in_processes(trials: Sequence[Trial], runs: Path, jobs: int, results: Results, progress: Progress) -> None:
    """Run trials, ``jobs`` at once, each in a process of its own.

    Raises:
        TwostageError: as :func:`twostage.comparison.run_trial`; the other processes are stopped.
        KeyboardInterrupt: Ctrl-C; every process saved its finished steps.
    """
    context = multiprocessing.get_context("spawn")
    channel: multiprocessing.Queue[tuple[str, str, Any]] = context.Queue()
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = list(trials)
    running: dict[str, SpawnProcess] = {}
    listening: set[str] = set()
    finished = 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                trial = waiting.pop(0)
                process = context.Process(target=_work, args=(trial, runs, threads, channel), name=trial.name)
                _start_deaf_to_interrupts(process)
                running[trial.name] = process
            progress.update("runs", finished, len(trials), ", ".join(running))
            try:
                kind, name, content = channel.get(timeout=1.0)
            except queue.Empty:
                _require_alive(running)
                continue
            if kind == "started":
                listening.add(name)
            elif kind == "update":
                progress.update(*content)
            elif kind == "note":
                progress.note(content)
            elif kind == "row":
                results.add(content)
                finished += 1
                running.pop(name).join()
            elif kind == "error":
                raise content
    finally:
        _stop(running, listening)
    progress.update("runs", len(trials), len(trials))


def _start_deaf_to_interrupts(process: SpawnProcess) -> None:
    """Start a process in which Ctrl-C does nothing until it asks for it: it could not answer while it imports."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, previous)


def _require_alive(running: dict[str, SpawnProcess]) -> None:
    for name, process in running.items():
        # After status 0 its result is on its way.
        if process.exitcode:
            raise OutputError(f"the process of {name} ended with status {process.exitcode} before it had a result")


def _stop(running: dict[str, SpawnProcess], listening: set[str]) -> None:
    """Let what still runs save its finished steps."""
    for name, process in running.items():
        if name in listening and process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGINT)
        else:
            process.terminate()
    for process in running.values():
        process.join()


def _work(trial: Trial, runs: Path, threads: int, channel: "multiprocessing.Queue[tuple[str, str, Any]]") -> None:
    """A trial in a process of its own."""
    # In a group of its own, Ctrl-C on the terminal reaches it once, through its parent.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(threads)
    channel.put(("started", trial.name, None))
    try:
        row = run_trial(trial, runs, progress=_Sender(channel, trial.name))
    except KeyboardInterrupt:
        # Nobody reads what is still on its way, so the process must not wait for it to be read.
        channel.cancel_join_thread()
        sys.exit(130)
    except TwostageError as error:
        channel.put(("error", trial.name, error))
    else:
        channel.put(("row", trial.name, row))


class _Sender(Progress):
    """Sends news to the parent, a few a second."""

    def __init__(self, channel: "multiprocessing.Queue[tuple[str, str, Any]]", name: str) -> None:
        self.channel = channel
        self.name = name
        self._last = 0.0

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise KeyboardInterrupt
        now = time.monotonic()
        if done >= total or now - self._last >= _SECONDS_BETWEEN_NEWS:
            self._last = now
            self.channel.put(("update", self.name, (task, done, total, detail)))

    def note(self, message: str) -> None:
        self.channel.put(("note", self.name, message))
