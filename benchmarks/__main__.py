"""``python -m benchmarks COMMAND``: see ``--help``."""

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import RESULTS, ROOT, gpu_check
from benchmarks.against import Worker, checked_out, compare, serve
from benchmarks.case import Absent, Case
from benchmarks.cases import all_cases, find, small_cases
from benchmarks.environment import describe, slug
from benchmarks.memory import measure_here
from benchmarks.rows import Row, append
from benchmarks.runner import Runner, check_all

# Above this load average before the start, other programs share the machine.
QUIET_LOAD = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if "device" in options and options.device == "cuda" and not torch.cuda.is_available():
        print(f"benchmarks {options.command}: torch sees no GPU here", file=sys.stderr)
        return 2
    return int(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Cases, runs, reports.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    def cases_of(added: argparse.ArgumentParser) -> None:
        added.add_argument("cases", nargs="*", default=["*"], help="patterns such as 'ssim*' (default: all)")
        added.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")

    cases_of(command("list", _list, "Name every case."))
    run = command("run", _run, "Check and time cases, and append rows.")
    cases_of(run)
    run.add_argument("--seconds", type=float, default=1.0, help="for each contender of a case, about (%(default)s)")
    run.add_argument("--against", metavar="REV", help="time this checkout and a revision in turns, without peers")
    run.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows (%(default)s)")
    check = command("check", _check, "Check ours against the float64 reference, without timing.")
    cases_of(check)
    check.add_argument("--small", action="store_true", help="on small images, for memory checkers")
    cases_of(command("once", _once, "Run ours once for each kernel case, unchecked, for profilers."))
    report = command("report", _report, "Draw plots and tables, and refresh the README's table.")
    report.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows (%(default)s)")
    sass = command("sass", _sass, "Tabulate what the GPU kernels compile to; needs no GPU.")
    sass.add_argument("--output", type=Path, default=RESULTS / "sass.md", help="(%(default)s)")
    gpu = command("gpu-check", _gpu_check, "Build, test, time and profile on this machine's GPU.")
    gpu.add_argument("--output", type=Path, default=Path("gpu-check"), help="folder to write (%(default)s)")
    memory = command("memory", _memory, "Peak memory of one contender, for the runner.")
    memory.add_argument("case")
    memory.add_argument("contender")
    command("worker", _worker, "Time what is asked for on standard input, for --against.").add_argument("--device")
    return parser


def _chosen(options: argparse.Namespace) -> list[Case]:
    found = [
        case
        for case in all_cases(options.device)
        if any(fnmatch.fnmatch(case.name, pattern) for pattern in options.cases)
    ]
    if not found:
        print(f"no case fits {', '.join(options.cases)}; `python -m benchmarks list` shows them all", file=sys.stderr)
    return found


def _list(options: argparse.Namespace) -> int:
    for case in _chosen(options):
        print(case.name)
    return 0


def _run(options: argparse.Namespace) -> int:
    cases = _chosen(options)
    if options.against:
        return _run_against(options, cases)
    runner = Runner(options.device, options.seconds)
    path = options.results / f"{slug(runner.origin['device'])}.jsonl"
    ceiling = runner.ceiling_row()
    append(path, [ceiling])
    print(f"{ceiling['run']}  {ceiling['device']}, {ceiling['threads']} threads, torch {ceiling['torch']}")
    print(f"copy {ceiling['bytes_per_second'] / 1e9:.1f} GB/s, float32 {_giga(ceiling)} billion multiply-adds/s")
    if ceiling["load"] > QUIET_LOAD:
        print(f"other programs are running (load {ceiling['load']:.1f}): these times are not to be quoted")
    for case in cases:
        print(f"\n{case.name}")
        for row in runner.run(case):
            append(path, [row])
            print(f"  {row['contender']:32} {_describe(row)}", flush=True)
    for refusal in runner.refused:
        print(f"refused: {refusal}", file=sys.stderr)
    return 1 if runner.refused or not cases else 0


def _giga(ceiling: Row) -> str:
    return f"{ceiling['multiply_adds_per_second'] / 1e9:.0f}"


def _describe(row: Row) -> str:
    if "absent" in row:
        return f"absent: {row['absent']}"
    text = f"{row['seconds'] * 1e3:10.3f} ms  ({row['p20'] * 1e3:.3f} to {row['p80'] * 1e3:.3f})"
    if row["floor_seconds"]:
        text += f"  {row['floor_seconds'] / row['seconds']:5.0%} of the ceiling"
    if row["peak_bytes"] is not None:
        text += f"  peak {row['peak_bytes'] / 2**20:.1f} MiB"
    return text


def _run_against(options: argparse.Namespace, cases: Sequence[Case]) -> int:
    origin = {**describe(options.device), "against": options.against}
    path = options.results / f"{slug(origin['device'])}.jsonl"
    with (
        checked_out(options.against) as tree,
        Worker(tree, options.device) as old,
        Worker(ROOT, options.device) as new,
    ):
        for case in cases:
            for contender, times in compare((old, new), case.name):
                name = f"{case.name:48} {contender:20}"
                if isinstance(times, str):
                    print(f"{name} {times}")
                    continue
                before, after = times
                print(
                    f"{name} {before.median * 1e3:9.3f} -> {after.median * 1e3:9.3f} ms, "
                    f"{before.median / after.median:.3f} times as fast",
                    flush=True,
                )
                common = {**origin, "op": case.op, "task": case.task, "size": case.size, "contender": contender}
                append(path, [{**common, "before": vars(before), "after": vars(after)}])
    return 0


def _check(options: argparse.Namespace) -> int:
    wrong = 0
    for case, contender, problem in check_all(small_cases(options.device) if options.small else _chosen(options)):
        print(f"{case.name} {contender}: {problem or 'right'}", flush=True)
        wrong += problem is not None
    return 1 if wrong else 0


def _once(options: argparse.Namespace) -> int:
    for case in _chosen(options):
        if "kernel" in case.groups:
            inputs = case.inputs(0)
            for contender in case.contenders():
                if not isinstance(contender, Absent) and contender.role == "ours":
                    contender.run(inputs)
    return 0


def _report(options: argparse.Namespace) -> int:
    from benchmarks.report import write_reports

    written = write_reports(options.results)
    for path in written:
        print(path)
    if not written:
        print(f"{options.results} holds no rows; `python -m benchmarks run` adds some", file=sys.stderr)
    return 0 if written else 1


def _sass(options: argparse.Namespace) -> int:
    from benchmarks.sass import write_table

    return write_table(options.output)


def _gpu_check(options: argparse.Namespace) -> int:
    return gpu_check.run(options.output)


def _memory(options: argparse.Namespace) -> int:
    case = find("cpu", options.case)
    for contender in case.contenders():
        if not isinstance(contender, Absent) and contender.name == options.contender:
            print(measure_here(case, contender))
            return 0
    print(f"{options.case} has no contender {options.contender!r} here", file=sys.stderr)
    return 2


def _worker(options: argparse.Namespace) -> int:
    serve(options.device, sys.stdin, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
