"""Everything that only a machine with a GPU can tell, in one command, in under nine minutes, without a network.

No step stops the next. Each has a log; ``summary.md`` says what became of each, and the exit status says whether all
went well: 0 yes, 1 no, 2 there is no GPU.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch

from benchmarks import ROOT
from benchmarks.gpu_kernels import KERNELS

TOTAL_SECONDS = 525.0
# A step that runs out of time is interrupted, so that it can still write what it has, and killed after this long.
GRACE_SECONDS = 8.0
NCU_METRICS = (
    "gpu__time_duration.sum",
    "launch__registers_per_thread",
    "launch__shared_mem_per_block",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__bytes.sum",
    "sm__inst_executed_pipe_fma.sum",
    "l1tex__data_bank_conflicts_pipe_lsu.sum",
    "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum",
)

Status = Literal["passed", "failed", "timed out", "absent"]


@dataclass(frozen=True)
class Finding:
    """What a step's log comes to."""

    good: bool
    note: str


@dataclass(frozen=True)
class Step:
    """One command."""

    name: str
    command: Sequence[str]
    limit: float
    """Seconds."""
    environment: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[int, str], Finding] | None = None
    """(exit status, log) -> what it means; None goes by the exit status and quotes the last line."""


@dataclass(frozen=True)
class Result:
    """What became of a step."""

    name: str
    status: Status
    seconds: float
    note: str


def run(output: Path, steps: Sequence[Step] | None = None, total_seconds: float = TOTAL_SECONDS) -> int:
    """Run all steps, write logs and summary to ``output``, and return the exit status.

    Args:
        steps: None takes those of this project, which need a GPU.
    """
    if steps is None:
        if not torch.cuda.is_available():
            print("gpu-check: torch sees no GPU here; nothing was run", file=sys.stderr)
            return 2
        steps = project_steps(output.resolve())
    output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + total_seconds
    results: list[Result] = []
    for number, step in enumerate(steps, start=1):
        log = output / f"{number:02d}-{step.name.replace(' ', '-')}.log"
        result = run_step(step, log, end - time.monotonic())
        print(f"{result.status:9} {result.seconds:6.1f} s  {result.name}: {result.note}", flush=True)
        results.append(result)
        write_summary(output, results)
    return 0 if all(result.status in ("passed", "absent") for result in results) else 1


def run_step(step: Step, log: Path, seconds_left: float) -> Result:
    """Run one step for as long as it may, its output in ``log``."""
    if shutil.which(step.command[0]) is None:
        return Result(step.name, "absent", 0.0, f"{step.command[0]} was not found")
    limit = min(step.limit, seconds_left)
    if limit <= 0:
        return Result(step.name, "timed out", 0.0, "no time was left for it")
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        file.write(f"{' '.join(step.command)}\n")
        file.flush()
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env={**os.environ, **step.environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status = _wait(process, limit)
    seconds = time.monotonic() - start
    text = log.read_text(encoding="utf-8", errors="replace").partition("\n")[2]
    if status is None:
        return Result(step.name, "timed out", seconds, f"stopped after {limit:.0f} s; {_last_line(text)}")
    found = step.read(status, text) if step.read else Finding(status == 0, _last_line(text))
    return Result(step.name, "passed" if found.good else "failed", seconds, found.note)


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """The exit status; None where the process and all its children had to be stopped."""
    for patience, signal_number in ((limit, signal.SIGINT), (GRACE_SECONDS, signal.SIGKILL)):
        try:
            status = process.wait(patience)
            return status if signal_number == signal.SIGINT else None
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal_number)
    process.wait()
    return None


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def write_summary(output: Path, results: Sequence[Result]) -> None:
    """``summary.md`` for people, ``summary.json`` for programs."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    lines = [f"# gpu-check on {device}", "", f"torch {torch.__version__}, Python {sys.version.split()[0]}", ""]
    lines += ["| step | outcome | seconds | |", "|---|---|---:|---|"]
    for result in results:
        note = result.note.replace("|", "\\|")
        lines.append(f"| {result.name} | {result.status} | {result.seconds:.1f} | {note} |")
    (output / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (output / "summary.json").write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")


def read_tests(report: Path) -> Callable[[int, str], Finding]:
    """Judges pytest by its JUnit report: a file that cannot be imported for want of a package is not a failure."""

    def read(status: int, log: str) -> Finding:
        if not report.exists():
            return Finding(False, f"pytest exited {status} and left no report; {_last_line(log)}")
        total = failed = skipped = 0
        missing: dict[str, int] = {}
        for test in xml.etree.ElementTree.parse(report).iter("testcase"):
            problem = "".join(element.text or "" for element in test if element.tag in ("error", "failure"))
            wants = problem.rpartition("ModuleNotFoundError: No module named ")[2].split("\n")[0].strip("'\" ")
            if test.find("error") is not None and "ModuleNotFoundError" in problem:
                missing[wants] = missing.get(wants, 0) + 1
                continue
            total += 1
            failed += bool(problem) or test.find("error") is not None or test.find("failure") is not None
            skipped += test.find("skipped") is not None
        note = f"{total - failed - skipped} passed, {failed} failed, {skipped} skipped"
        note += "".join(f"; {count} files need {name}, which is not here" for name, count in sorted(missing.items()))
        return Finding(failed == 0 and total > 0, note)

    return read


def read_sanitizer(status: int, log: str) -> Finding:
    """Judges compute-sanitizer by its closing line, and names the kernels it complains of."""
    closing = [line for line in log.splitlines() if "SUMMARY:" in line]
    if not closing:
        return Finding(False, f"exited {status} without a summary; {_last_line(log)}")
    note = closing[-1].strip("= ")
    kernels = sorted(
        {line.split(" at ")[1].split("(")[0] for line in log.splitlines() if " at " in line and "+0x" in line}
    )
    good = status == 0 and (" 0 errors" in note or " 0 hazards" in note)
    return Finding(good, note + (f" in {', '.join(kernels[:5])}" if kernels else ""))


def project_steps(output: Path) -> list[Step]:
    """What there is to find out, the most important first."""
    python = sys.executable
    benchmarks = (python, "-m", "benchmarks")
    paths = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH"))))
    here = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    parallel = ("-n", "6") if importlib.util.find_spec("xdist") else ()
    report = output / "tests.xml"
    tests = (python, "-m", "pytest", "-q", "--continue-on-collection-errors", f"--junitxml={report}", *parallel)
    small = (*benchmarks, "check", "--device", "cuda", "--small")
    uncached = {**here, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    sanitizer = ("compute-sanitizer", "--error-exitcode", "1", "--print-limit", "20", "--tool")
    lpips = () if os.environ.get("TWOSTAGE_LPIPS_WEIGHTS") else ("--without-lpips",)
    names = "|".join(sorted({kernel.entry for kernel in KERNELS}))
    ncu = ("ncu", "--clock-control", "none", "--csv", "--log-file", str(output / "ncu.csv"), "--launch-count", "40")
    chosen = ("--kernel-name", f"regex:{names}") if names else ()
    return [
        Step(
            "build",
            (python, "setup.py", "build_ext", "--inplace"),
            120,
            {**here, "TWOSTAGE_CUDA_ARCHITECTURES": "native"},
        ),
        Step("backends", (python, "-m", "twostage_kernels"), 20, here),
        Step("small cases", small, 60, here),
        Step(
            "benchmarks",
            (*benchmarks, "run", "--device", "cuda", "--seconds", "0.2", "--results", str(output)),
            110,
            here,
        ),
        Step("tests", tests, 130, here, read_tests(report)),
        *(
            Step(tool, (*sanitizer, tool, *small), 40, uncached, read_sanitizer)
            for tool in ("memcheck", "racecheck", "initcheck")
        ),
        Step(
            "ncu",
            (*ncu, *chosen, "--metrics", ",".join(NCU_METRICS), *benchmarks, "once", "--device", "cuda"),
            40,
            here,
        ),
        Step("whole training", (python, "-m", "benchmarks.whole_training", *lpips), 100, here),
        Step("report", (*benchmarks, "report", "--results", str(output)), 20, here),
    ]
