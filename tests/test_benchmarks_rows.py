"""Timing, rows, report: what a published figure rests on."""

import dataclasses
import itertools
import json
import math
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import RESULTS, ROOT
from benchmarks import report as reports
from benchmarks.case import Absent, Case, Contender, Least, Role, WrongResultError, check
from benchmarks.ceilings import Ceilings
from benchmarks.clock import Stopwatch, Timing, interleave, rotation
from benchmarks.environment import processor_name
from benchmarks.peers import Peer
from benchmarks.processor import _built, processor_rate
from benchmarks.report import readme
from benchmarks.report.scaling import fits
from benchmarks.report.tables import comparisons, three_digits, time
from benchmarks.rows import append, latest_run, read
from benchmarks.runner import Runner, check_all

ORIGIN = {
    "run": "2026-01-02T03:04:05Z abc",
    "device": "A Processor",
    "device_type": "cpu",
    "threads": 2,
    "load": 0.1,
    "driver": None,
    "torch": "2.13.0",
    "python": "3.11",
    "dirty": False,
}
CEILINGS = {**ORIGIN, "op": "ceilings", "contender": "machine", **dataclasses.asdict(Ceilings(40e9, 100e9))}


def row(contender: str, role: Role, seconds: float, **others: Any) -> dict[str, Any]:
    shape = others.pop("shape", [4, 3, 64, 64])
    pixels = math.prod(shape)
    return {
        **ORIGIN,
        "op": "ssim",
        "task": "forward",
        "size": "x".join(map(str, shape)),
        "shape": shape,
        "contender": contender,
        "role": role,
        "version": None,
        "groups": ["kernel"],
        "seconds": seconds,
        "p20": seconds * 0.9,
        "p80": seconds * 1.1,
        "samples": 9,
        "error_of_allowed": 0.1,
        "least_bytes": 8 * pixels,
        "least_multiply_adds": 110 * pixels,
        "floor_seconds": 110 * pixels / 100e9,
        "peak_bytes": None,
        **others,
    }


ROWS = [CEILINGS, row("native", "ours", 1.25e-3), row("slow", "peer", 9e-3), row("quick", "peer", 5e-3)]


def case(judge: Callable[[Any, Any, Role], float], *contenders: Contender | Absent) -> Case:
    return Case(
        op="double",
        task="it",
        shape=(1,),
        device="cpu",
        inputs=lambda seed: seed,
        contenders=lambda: contenders,
        truth=lambda inputs: 2 * inputs,
        judge=judge,
        least=lambda _: Least(8, 1),
        rotates=False,
    )


def distance(result: float, truth: float, role: Role) -> float:
    return abs(result - truth)


def test_wrong_result_is_not_timed_and_a_wrong_one_of_ours_refuses_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.runner.measure_ceilings", lambda device: Ceilings(1e9, 1e9))
    right = Contender("right", "ours", lambda x: 2 * x)
    wrong = Contender("wrong", "peer", lambda x: 2 * x + 5)
    runner = Runner("cpu", seconds=0.0)
    found = {row["contender"]: row for row in runner.run(case(distance, right, wrong, Absent("gone", "no such")))}
    assert found["right"]["seconds"] > 0
    assert "its error is 5 times the allowed" in found["wrong"]["absent"]
    assert found["gone"]["absent"] == "no such"
    assert not runner.refused
    broken = Contender("broken", "ours", lambda x: 2 * x + 5)
    assert not list(runner.run(case(distance, broken, right)))
    assert runner.refused == ["double it 1: broken computes something else: its error is 5 times the allowed"]


def test_nan_is_never_right() -> None:
    contender = Contender("nan", "ours", lambda x: math.nan)
    with pytest.raises(WrongResultError, match="error is nan"):
        check(case(distance, contender), contender, 0.0)


def test_check_tells_every_one_of_ours() -> None:
    right, wrong = Contender("right", "ours", lambda x: 2 * x), Contender("wrong", "ours", lambda x: 2 * x + 5)
    peer = Contender("peer", "peer", lambda x: 2 * x + 5)
    found = {name: problem for _, name, problem in check_all([case(distance, right, wrong, peer)])}
    assert found["right"] is None
    assert "5 times" in (found["wrong"] or "")
    assert "peer" not in found


def test_median_and_spread() -> None:
    timing = Timing.of([5.0, 1.0, 2.0, 4.0, 3.0, 100.0])
    assert timing == Timing(3.5, 2.0, 5.0, 6)


def test_contenders_take_turns_on_the_same_inputs() -> None:
    calls: list[tuple[str, int]] = []
    runs = {name: lambda x, name=name: calls.append((name, x)) for name in ("a", "b")}
    stopwatch = Stopwatch("cpu", [10, 20, 30])
    stopwatch.calls_in_a_sample = lambda run: 2  # type: ignore[method-assign]
    timings = interleave(stopwatch, runs, seconds=0.0)
    assert {name: timing.samples for name, timing in timings.items()} == {"a": 5, "b": 5}
    order = [name for name, _ in itertools.groupby(calls, key=lambda call: call[0])]
    assert len(order) >= 6, "neither runs all its samples in a row"
    assert {x for _, x in calls} == {10, 20, 30}


def test_short_calls_are_repeated_within_a_sample() -> None:
    stopwatch = Stopwatch("cpu", [None])
    assert stopwatch.calls_in_a_sample(lambda _: None) > 100


def test_inputs_rotate_past_the_cache() -> None:
    small, large = rotation("cpu", 1 << 20), rotation("cpu", 1 << 40)
    assert large == 2
    assert small * (1 << 20) >= 3 << 20


def test_floor_is_the_larger_of_the_two_limits() -> None:
    ceilings = Ceilings(10e9, 100e9)
    assert ceilings.floor(10, 0) == 1e-9
    assert ceilings.floor(10, 1000) == 10e-9


def test_rate_of_the_processor_is_at_least_that_of_a_matrix_product() -> None:
    rate = processor_rate()
    if rate is None:
        pytest.skip("no C++ compiler that builds the loop")
    side = 512
    left, right = torch.rand(2, side, side)
    seconds = min(timeit.repeat(lambda: left @ right, number=3, repeat=5)) / 3
    assert rate > 0.5 * side**3 / seconds  # half, because the machine may be busy in one of the two moments
    assert rate < 1e15


def test_without_a_compiler_the_processors_rate_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    _built.cache_clear()
    try:
        assert processor_rate() is None
    finally:
        _built.cache_clear()


def test_peer_that_is_not_installed_is_named() -> None:
    def build() -> Callable[..., Any]:
        raise ModuleNotFoundError("No module named 'no_such_package'")

    found = Peer("nobody", build).load("cpu", lambda function: function)
    assert found == Absent("nobody", "ModuleNotFoundError: No module named 'no_such_package'")
    assert Peer("gpu alone", build, devices=("cuda",)).load("cpu", lambda function: function) == Absent(
        "gpu alone", "it has nothing for cpu"
    )


def test_rows_are_appended_and_the_newest_run_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a-processor.jsonl"
    append(path, ROWS)
    before = path.read_bytes()
    newer = [{**one, "run": "2026-02-02T00:00:00Z def"} for one in ROWS[:2]]
    append(path, newer)
    assert path.read_bytes().startswith(before)
    (tmp_path / "detection.jsonl").write_text('{"data": "something else"}\n')
    assert read(tmp_path) == [*ROWS, *newer]
    assert latest_run(read(tmp_path)) == newer


def test_fastest_comes_first() -> None:
    (found,) = comparisons(ROWS)
    assert [one["contender"] for one in found.timed] == ["native", "quick", "slow"]
    assert found.ours["contender"] == "native"


def test_of_ours_the_first_is_compared_however_fast_the_others_are() -> None:
    (found,) = comparisons([*ROWS, row("native, hurried", "ours", 1e-9)])
    assert found.timed[0]["contender"] == "native, hurried"
    assert found.ours["contender"] == "native"


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2.00 s"), (12.34e-3, "12.3 ms"), (4.567e-5, "45.7 us"), (123.4e-3, "123 ms")]
)
def test_times_are_written_with_three_digits(seconds: float, text: str) -> None:
    assert time(seconds) == text


def test_small_ratios_keep_their_digits() -> None:
    assert [three_digits(value) for value in (1234.5, 99.94, 0.269, 0)] == ["1234", "99.9", "0.269", "0"]


def test_scaling_fit_recovers_what_it_was_made_from() -> None:
    sizes = [(1, 1, side, side) for side in (32, 64, 128, 256, 512)]
    rows = [
        row("native", "ours", 50e-6 + 2e-9 * math.prod(s), shape=list(s), task="scaling over image side") for s in sizes
    ]
    (fit,) = fits(comparisons(rows))
    assert fit.fixed == pytest.approx(50e-6)
    assert fit.per_pixel == pytest.approx(2e-9)
    # At 256 x 256 the fixed part is 38 % of the rest; at 512 x 512 it is 10 %.
    assert fit.linear == (512 * 512, 512 * 512)


def test_readme_is_refreshed_between_its_markers_alone() -> None:
    text = readme.refreshed(f"before\n{readme.START}\nold\n{readme.END}\nafter\n", ROWS)
    assert text.startswith(f"before\n{readme.START}\nA Processor, 2 threads")
    assert text.endswith(f"{readme.END}\nafter\n")
    assert "| ssim forward | 4x3x64x64 | 1.25 ms | 4% | 5.00 ms, quick | 4.00 |" in text
    assert "old" not in text
    assert readme.stale(text, ROWS) is None


def test_readme_with_other_figures_or_without_rows_is_stale() -> None:
    text = readme.refreshed(f"{readme.START}{readme.END}", ROWS)
    assert "1.24 ms" in (readme.stale(text.replace("1.25 ms", "1.24 ms"), ROWS) or "")
    assert readme.stale(text, []) == f"there are no rows of run {ORIGIN['run']}"
    kept = "\n".join(line for line in text.splitlines() if "| ssim" not in line)
    assert readme.stale(kept, ROWS) == "lines are missing"


def test_figures_of_the_project_readme_are_in_the_rows() -> None:
    assert readme.stale((ROOT / "README.md").read_text(encoding="utf-8"), read(RESULTS)) is None


def test_report_shows_every_contender_and_why_others_are_absent(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of the [train] extra, is not installed")
    gone = {**row("gone", "peer", 1.0), "absent": "it is <not> here"}
    del gone["seconds"]
    other = [
        row("native", "ours", 9e-3, shape=[8, 3, 256, 256], groups=["kernel", "memory"], peak_bytes=5 << 20),
        row("quick", "peer", 30e-3, shape=[8, 3, 256, 256], groups=["kernel", "memory"], peak_bytes=50 << 20),
        *(
            row("native", "ours", n * 1e-5, shape=[n, 3, 8, 8], task="scaling over batch", groups=["scaling"])
            for n in (1, 2)
        ),
    ]
    append(tmp_path / "a-processor.jsonl", [*ROWS, gone, *other])
    written = {path.name for path in reports.write_reports(tmp_path, None)}
    assert written == {"time.png", "roofline.png", "ratio.png", "memory.png", "scaling.png", "report.html"}
    page = (tmp_path / "a-processor" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("native", "quick", "slow", "7.20", "it is &lt;not&gt; here", "50.0 MiB"))


def test_row_of_a_real_case_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.cases import similarity

    monkeypatch.setattr("benchmarks.runner.measure_ceilings", lambda device: Ceilings(1e9, 1e9))
    small = similarity.case("aw_ssim", "forward+backward", (1, 1, 32, 32), "cpu", "scaling")
    (found,) = Runner("cpu", seconds=0.0).run(small)
    assert json.loads(json.dumps(found)) == found
    assert found["least_bytes"] == 3 * 4 * 1024
    assert found["least_multiply_adds"] == 176 * 1024
    assert found["floor_seconds"] == pytest.approx(176 * 1024 / 1e9)
    for name in ("device", "driver", "torch", "python", "commit", "dirty", "p20", "p80", "error_of_allowed"):
        assert name in found


@pytest.mark.parametrize("task", ["forward", "forward+backward"])
def test_truth_made_in_parts_is_the_truth(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.cases import similarity

    one = similarity.case("ssim", task, (3, 2, 20, 24), "cpu")
    inputs = one.inputs(0)
    loss, gradient = one.truth(inputs)
    monkeypatch.setattr(similarity, "_PIXELS_AT_ONCE", 1000)
    loss_of_parts, gradient_of_parts = one.truth(inputs)
    assert float(loss_of_parts) == pytest.approx(float(loss), abs=1e-14)
    if task == "forward":
        assert gradient_of_parts is gradient is None
    else:
        assert torch.allclose(gradient_of_parts, gradient, rtol=0, atol=1e-16)


def test_a_wrong_gradient_is_seen() -> None:
    from benchmarks.cases import similarity

    one = similarity.case("ssim", "forward+backward", (1, 1, 24, 24), "cpu")
    loss, gradient = truth = one.truth(one.inputs(0))
    assert one.judge(truth, truth, "ours") == 0
    assert one.judge((loss, gradient * 1.01), truth, "ours") > 1
    assert one.judge((loss + 1e-4, gradient), truth, "ours") > 1


def test_processors_of_one_name_are_told_apart() -> None:
    old = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\n"
    assert processor_name(old) == "AMD EPYC (family 25, model 1)"
    assert processor_name(old.replace(": 1\nmodel name", ": 17\nmodel name")) == "AMD EPYC (family 25, model 17)"
    assert processor_name("model name : A Processor\n") == "A Processor"
    assert processor_name("Features : asimd\n")
