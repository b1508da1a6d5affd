"""The GPU check's own logic, on commands that need no GPU."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import Finding, Step, project_steps, read_sanitizer, read_tests, run


def python(name: str, code: str, limit: float = 30.0, **others: object) -> Step:
    return Step(name, (sys.executable, "-c", code), limit, **others)  # type: ignore[arg-type]


def outcomes(output: Path) -> dict[str, str]:
    return {result["name"]: result["status"] for result in json.loads((output / "summary.json").read_text())}


def test_a_failure_stops_nothing_and_shows_in_the_exit_status(tmp_path: Path) -> None:
    steps = [python("first", "print('broken'); raise SystemExit(3)"), python("second", "print('all well')")]
    assert run(tmp_path, steps) == 1
    assert outcomes(tmp_path) == {"first": "failed", "second": "passed"}
    assert (tmp_path / "01-first.log").read_text().endswith("broken\n")
    assert "| second | passed |" in (tmp_path / "summary.md").read_text()
    assert "all well" in (tmp_path / "summary.md").read_text()


def test_all_well_exits_0(tmp_path: Path) -> None:
    assert run(tmp_path, [python("only", "pass")]) == 0


def test_a_tool_that_is_not_here_is_absent_and_no_failure(tmp_path: Path) -> None:
    assert run(tmp_path, [Step("ncu", ("no-such-tool-of-all-tools", "x"), 5)]) == 0
    assert outcomes(tmp_path) == {"ncu": "absent"}


def test_environment_of_a_step_reaches_it(tmp_path: Path) -> None:
    code = "import os; raise SystemExit(os.environ['TWOSTAGE_CUDA_ARCHITECTURES'] != 'native')"
    assert run(tmp_path, [python("build", code, environment={"TWOSTAGE_CUDA_ARCHITECTURES": "native"})]) == 0


def test_a_step_out_of_time_is_interrupted_and_may_write_what_it_has(tmp_path: Path) -> None:
    code = """
import time
print('started', flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print('7 of 9 done', flush=True)
"""
    start = time.monotonic()
    assert run(tmp_path, [python("slow", code, 1.5), python("next", "pass")]) == 1
    assert time.monotonic() - start < 20
    assert outcomes(tmp_path) == {"slow": "timed out", "next": "passed"}
    assert "7 of 9 done" in (tmp_path / "summary.md").read_text()


def test_a_step_that_does_not_listen_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "GRACE_SECONDS", 0.5)
    mark = tmp_path / "still-alive"
    code = f"""
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
if os.fork() == 0:
    time.sleep(4)
    open({str(mark)!r}, 'w').close()
time.sleep(60)
"""
    assert run(tmp_path, [python("deaf", code, 1.0)]) == 1
    assert outcomes(tmp_path) == {"deaf": "timed out"}
    time.sleep(4)
    assert not mark.exists()


def test_what_finds_no_time_left_says_so(tmp_path: Path) -> None:
    steps = [python("long", "import time; time.sleep(60)", 30), python("last", "pass")]
    assert run(tmp_path, steps, total_seconds=1.0) == 1
    assert outcomes(tmp_path) == {"long": "timed out", "last": "timed out"}
    assert "no time was left" in (tmp_path / "summary.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")
def test_without_a_gpu_one_line_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "output") == 2
    assert capsys.readouterr().err.splitlines() == ["gpu-check: torch sees no GPU here; nothing was run"]
    assert not (tmp_path / "output").exists()


JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_one"/>
<testcase classname="tests.test_a" name="test_two"><skipped message="no data">x</skipped></testcase>
{more}
</testsuite></testsuites>"""
NO_TYRO = """<testcase name="tests.test_cli"><error message="collection failure">tests/test_cli.py:3: in &lt;module&gt;
    import tyro
E   ModuleNotFoundError: No module named 'tyro'</error></testcase>"""
FAILURE = '<testcase name="test_three"><failure message="assert 1 == 2">E  assert 1 == 2</failure></testcase>'
BROKEN = '<testcase name="tests.test_b"><error message="collection failure">SyntaxError</error></testcase>'


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", Finding(True, "1 passed, 0 failed, 1 skipped")),
        (NO_TYRO * 2, Finding(True, "1 passed, 0 failed, 1 skipped; 2 files need tyro, which is not here")),
        (FAILURE, Finding(False, "1 passed, 1 failed, 1 skipped")),
        (BROKEN, Finding(False, "1 passed, 1 failed, 1 skipped")),
    ],
)
def test_reading_the_tests(tmp_path: Path, more: str, expected: Finding) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(JUNIT.format(more=more))
    assert read_tests(report)(1, "") == expected


def test_tests_without_a_report_have_failed(tmp_path: Path) -> None:
    found = read_tests(tmp_path / "none.xml")(4, "usage error")
    assert not found.good
    assert "usage error" in found.note


CLEAN = "========= COMPUTE-SANITIZER\nall right\n========= ERROR SUMMARY: 0 errors\n"
HAZARD = "========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n"
OVERRUN = """========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at similarity_kernel(float const*, float*)+0x120
========= ERROR SUMMARY: 10 errors
"""


@pytest.mark.parametrize(
    ("status", "log", "expected"),
    [
        (0, CLEAN, Finding(True, "ERROR SUMMARY: 0 errors")),
        (
            0,
            "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)",
            Finding(True, "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"),
        ),
        (1, HAZARD, Finding(False, "RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)")),
        (1, OVERRUN, Finding(False, "ERROR SUMMARY: 10 errors in similarity_kernel")),
        # The program under it was wrong, though its memory was not.
        (1, CLEAN, Finding(False, "ERROR SUMMARY: 0 errors")),
        (255, "Device not supported", Finding(False, "exited 255 without a summary; Device not supported")),
    ],
)
def test_reading_a_sanitizer(status: int, log: str, expected: Finding) -> None:
    assert read_sanitizer(status, log) == expected


def test_the_projects_own_steps_are_complete_and_in_time(tmp_path: Path) -> None:
    steps = project_steps(tmp_path)
    names = [step.name for step in steps]
    assert names[0] == "build"
    assert {"tests", "benchmarks", "memcheck", "racecheck", "initcheck", "ncu", "report"} <= set(names)
    assert len(names) == len(set(names))
    assert all(step.limit <= 150 for step in steps)
    assert gpu_check.TOTAL_SECONDS + gpu_check.GRACE_SECONDS < 9 * 60
