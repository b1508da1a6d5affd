"""Two revisions in one run: each in a process of its own, taking turns."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from benchmarks import ROOT
from benchmarks.case import Absent, Case, WrongResultError, check
from benchmarks.cases import find
from benchmarks.clock import ROUNDS, Stopwatch, Timing, rotation

_COPIED = ("benchmarks", "tests")


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """``revision`` in a temporary folder, its extension built, with the benchmarks of this checkout to judge it.

    Raises:
        subprocess.CalledProcessError: there is no such revision, or it does not build.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), revision], cwd=ROOT, check=True)
        try:
            for name in _COPIED:
                shutil.copytree(ROOT / name, tree / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("results"))
            build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
            subprocess.run(build, cwd=tree, check=True, stdout=subprocess.DEVNULL)
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


class Worker:
    """A process that times cases of one tree, one sample when it is asked for one."""

    def __init__(self, tree: Path, device: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tree), str(tree / "kernels")))}
        command = [sys.executable, "-m", "benchmarks", "worker", "--device", device]
        self._process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def prepare(self, case: str) -> dict[str, str]:
        """Check ``case``: what each contender of ours answers, "ready" or why it is not."""
        answer: dict[str, str] = self._ask(case=case)
        return answer

    def sample(self, contender: str) -> float:
        """Seconds of one call."""
        seconds: float = self._ask(sample=contender)
        return seconds

    def _ask(self, **question: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the benchmark process ended with {self._process.wait()} at {question}; see above")
        return json.loads(answer)


def compare(workers: Sequence[Worker], case: str) -> Iterator[tuple[str, tuple[Timing, ...] | str]]:
    """(contender of ours, its times in each tree or why there are none)."""
    states = [worker.prepare(case) for worker in workers]
    for contender in dict.fromkeys(name for state in states for name in state):
        answers = [state.get(contender, "not there") for state in states]
        if answers != ["ready"] * len(workers):
            yield contender, " | ".join(answers)
            continue
        samples: list[list[float]] = [[] for _ in workers]
        for turn in range(ROUNDS[1] // 2):
            # Whoever comes second finds the machine as the first has left it: they change places.
            for index in range(len(workers)) if turn % 2 else reversed(range(len(workers))):
                samples[index].append(workers[index].sample(contender))
        yield contender, tuple(Timing.of(seconds) for seconds in samples)


def serve(device: str, questions: TextIO, answers: TextIO) -> None:
    """What a :class:`Worker` does at the other end."""
    station: _Station | None = None
    for line in questions:
        question = json.loads(line)
        if "case" in question:
            station = _Station(find(device, question["case"]))
            answer: Any = station.states
        else:
            assert station is not None
            answer = station.sample(question["sample"])
        print(json.dumps(answer), file=answers, flush=True)


class _Station:
    """One case, ready to be timed."""

    def __init__(self, case: Case) -> None:
        ours = [one for one in case.contenders() if not isinstance(one, Absent) and one.role == "ours"]
        truth = case.truth(case.inputs(0))
        self.states: dict[str, str] = {}
        for contender in ours:
            try:
                check(case, contender, truth)
                self.states[contender.name] = "ready"
            except WrongResultError as error:
                self.states[contender.name] = str(error)
        first = case.inputs(0)
        sets = rotation(case.device, case.least(first).bytes) if case.rotates else 1
        inputs = [first, *(case.inputs(seed) for seed in range(1, sets))]
        self._stopwatch = Stopwatch(case.device, inputs, case.shortest_sample)
        self._runs = {contender.name: contender.run for contender in ours}
        self._calls: dict[str, int] = {}
        self._repeats = case.repeats

    def sample(self, contender: str) -> float:
        run = self._runs[contender]
        if contender not in self._calls:
            self._calls[contender] = self._stopwatch.calls_in_a_sample(run)
        return self._stopwatch.sample(run, self._calls[contender]) / self._repeats
