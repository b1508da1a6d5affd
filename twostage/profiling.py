"""Where the time of a training step goes: a trace of some steps of every stage, and a page that sums each up."""

import itertools
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from twostage.files import write_text_atomic
from twostage.trainer import PHASES, Trainer

_STEPS_BEFORE = 3
_STEPS = 10
_OPERATORS = 12


class Profiler:
    """Profiles a few steps of every stage, after a few that warm up.

    Writes into a folder, for every stage, a trace (``stage-1.json``, for chrome://tracing or Perfetto) and what it sums
    up to (``stage-1.txt``).

    Args:
        trainer: its steps are profiled.
        folder: made if missing.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer = trainer
        self.folder = folder
        self._profile: Any = None
        self._starts: dict[int, int] = {}
        self._profiled: set[int] = set()
        self._ends = -1
        if trainer.step < trainer.total_steps:
            self._starts[trainer.moment_of(trainer.step).stage] = trainer.step

    def after_step(self) -> None:
        """To be called after every step, or after some of them."""
        following = self.trainer.step
        if self._profile is not None and following >= self._ends:
            self.finish()
        if following >= self.trainer.total_steps:
            return
        stage = self.trainer.moment_of(following).stage
        first = self._starts.setdefault(stage, following)
        if self._profile is None and stage not in self._profiled and following >= first + _STEPS_BEFORE:
            self._begin(stage, following)

    def finish(self) -> None:
        """Write what was recorded so far."""
        if self._profile is None:
            return
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)
        recorded, self._profile = self._profile, None
        recorded.__exit__(None, None, None)
        if self.trainer.step == self._first:
            return  # the training ended where recording began
        self._ends = self.trainer.step
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"stage-{self._stage + 1}"
        recorded.export_chrome_trace(str(self.folder / f"{name}.json"))
        write_text_atomic(self.folder / f"{name}.txt", self._page(recorded))

    def _begin(self, stage: int, step: int) -> None:
        limit = min(step + _STEPS, self.trainer.total_steps)
        within = itertools.takewhile(lambda later: self.trainer.moment_of(later).stage == stage, range(step, limit))
        self._stage, self._first, self._ends = stage, step, step + len(list(within))
        self._profiled.add(stage)
        activities = [ProfilerActivity.CPU]
        if self.trainer.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities)
        self._profile.__enter__()

    def _page(self, recorded: Any) -> str:
        steps = self._ends - self._first
        averages = recorded.key_averages()
        # A GPU has entries of its own for the phases, without time of the host.
        found = {event.key: event for event in averages if event.cpu_time_total > 0}
        whole = found["step"].cpu_time_total / steps / 1e3
        lines = [
            f"Stage {self._stage + 1}, steps {self._first} to {self._ends - 1} on {self.trainer.device}, "
            f"{self.trainer.batch_size} patches a step: {whole:.2f} ms a step, "
            f"{self.trainer.batch_size / whole * 1e3:,.0f} patches/s. Profiling itself takes time.",
            "",
            f"{'':<12}{'ms a step':>12}{'share':>8}" + ("" if not self._on_gpu else f"{'GPU ms':>12}"),
        ]
        rest = whole
        for phase in PHASES:
            if phase in found:
                took = found[phase].cpu_time_total / steps / 1e3
                rest -= took
                lines.append(self._line(phase, took, whole, found[phase]))
        lines += [
            self._line("host", rest, whole, None),
            "",
            f"Operators with the most time of their own ({_OPERATORS}):",
        ]
        own = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
        operators = [event for event in averages if event.key not in (*PHASES, "step")]
        operators.sort(key=lambda event: -getattr(event, own))
        for event in itertools.islice(operators, _OPERATORS):
            lines.append(
                f"{getattr(event, own) / steps / 1e3:>10.3f} ms  {event.count / steps:>6.1f} calls  {event.key[:80]}"
            )
        return "\n".join(lines) + "\n"

    @property
    def _on_gpu(self) -> bool:
        return self.trainer.device.type == "cuda"

    def _line(self, name: str, took: float, whole: float, event: Any) -> str:
        line = f"{name:<12}{took:>12.2f}{took / whole:>8.1%}"
        if self._on_gpu and event is not None:
            line += f"{event.device_time_total / (self._ends - self._first) / 1e3:>12.2f}"
        return line
