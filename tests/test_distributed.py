"""Several processes train the model that one would, evaluate exactly, and go on after one of them was killed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import pytest
import rank_workers
import safetensors.torch
import torch
from cli_data import QUICK, make_surface
from rank_workers import normalised, normalised_batch, run_ranks
from tolerances import SHARED_BATCH, tolerance
from torch import Tensor, nn
from training_fixtures import assert_equal_bits, make_images, make_trainer, state_of

from twostage import Config, DataConfig, Detector
from twostage.checkpoint import latest_checkpoint, load_checkpoint
from twostage.cli import main
from twostage.config import ComputeConfig
from twostage.data import find_samples
from twostage.distributed import Ranks
from twostage.errors import ConfigError
from twostage.trainer import StepReport

FORKSERVER = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def _processes_find_the_tests_modules() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def states(folder: Path, size: int) -> list[dict[str, Tensor]]:
    return [safetensors.torch.load_file(folder / str(rank)) for rank in range(size)]


def test_batch_statistics_and_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    run_ranks(FORKSERVER, 2, rank_workers.normalise, tmp_path)
    parts = states(tmp_path, 2)
    whole = normalised(nn.BatchNorm2d(3).double(), normalised_batch())
    for name in ("found", "values"):
        for rank in range(2):
            torch.testing.assert_close(parts[rank][name], whole[name][rank::2], rtol=0, atol=1e-11)
    for name in ("weight_gradient", "bias_gradient"):
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name], rtol=0, atol=1e-11)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(parts[0][name], parts[1][name])
        torch.testing.assert_close(parts[0][name], whole[name], rtol=0, atol=1e-13)


def assert_near(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    far = {
        name: distance
        for name, value in expected.items()
        if not (distance := float((found[name].double() - value.double()).abs().max())) <= SHARED_BATCH
    }
    assert not far


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = make_trainer(make_images(4), batch_size=4, double=True)
    trainer.run()
    torch.set_num_threads(threads)
    return state_of(trainer)


def test_two_processes_train_the_weights_of_one(tmp_path: Path, alone: dict[str, Tensor]) -> None:
    """Both stages, defects and all: 8 steps of Adam, in float64.

    In float32 the first steps of Adam make much of gradients that are all rounding, and noise images the most of them.
    """
    run_ranks(FORKSERVER, 2, rank_workers.train, tmp_path / "checkpoints", tmp_path, None)
    first, second = states(tmp_path, 2)
    assert_equal_bits(second, first)
    assert_near(first, alone)
    start = make_trainer(make_images(4), batch_size=4, double=True).model.state_dict()
    moved = [float((alone[name] - value).abs().max()) for name, value in start.items() if value.is_floating_point()]
    assert max(moved) > 1e6 * SHARED_BATCH, "the bound says something"


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, alone: dict[str, Tensor], sizes: tuple[int, int]
) -> None:
    """Ctrl-C reaches one process; all stop at the same step, and the first saves."""
    before, after = sizes
    run_ranks(FORKSERVER, before, rank_workers.train, tmp_path / "checkpoints", tmp_path, 5)
    assert latest_checkpoint(tmp_path / "checkpoints").checkpoint.step == 5
    run_ranks(FORKSERVER, after, rank_workers.train, tmp_path / "checkpoints", tmp_path, None)
    assert_near(states(tmp_path, 1)[0], alone)


@pytest.mark.parametrize("compute", [ComputeConfig(log_every=3), ComputeConfig(precision="bf16")], ids=["late", "bf16"])
def test_losses_of_two_processes_are_those_of_one(tmp_path: Path, compute: ComputeConfig) -> None:
    """Every process is told all of them; read late or not, and in bfloat16 to what that allows."""
    run_ranks(FORKSERVER, 2, rank_workers.losses, compute, tmp_path)
    reports: list[StepReport] = []
    make_trainer(make_images(4), batch_size=4).run(on_step=reports.append)
    expected = [report.loss for report in reports]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    bound = tolerance("bf16 loss", torch.float32)
    assert found[0] == pytest.approx(expected, abs=bound)
    assert found[0][:1] == pytest.approx(expected[:1], abs=1e-3 if compute.precision == "bf16" else 1e-6)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twostage.trainer.current_ranks", lambda: Ranks(0, 3))
    with pytest.raises(ConfigError, match="a batch has 4 patches; accepted: a multiple of the 3 processes"):
        make_trainer(make_images(4), batch_size=4)


@pytest.mark.parametrize("home", ["memory", "cache"])
def test_one_process_lists_all_that_is_wrong_with_the_data(tmp_path: Path, home: Literal["memory", "cache"]) -> None:
    root = make_surface(tmp_path / "stripes", train=8)
    for number in (2, 5):
        sorted((root / "train/good").iterdir())[number].write_bytes(b"no image")
    broken = [path.name for path in sorted((root / "train/good").iterdir())]
    config = Config(data=DataConfig(root=root, home=home, cache=tmp_path / "cache"), device="cpu")
    run_ranks(FORKSERVER, 2, rank_workers.load_images, config, tmp_path)
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert "2 problems in the data" in first
    assert broken[2] in first
    assert broken[5] in first
    assert second == "the data is not usable; the first process lists what is wrong with it"


# ---------------------------------------------------------------- the command line under torchrun


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_surface(tmp_path_factory.mktemp("data") / "stripes", train=8)


@pytest.fixture(scope="module")
def one_process(surface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "one"
    assert main(["train", str(run), f"--data.root={surface}", *QUICK]) == 0
    return run


def test_a_shared_evaluation_is_that_of_one_process_to_the_bit(one_process: Path, tmp_path: Path) -> None:
    run_ranks(FORKSERVER, 2, rank_workers.evaluate, one_process / "detector", tmp_path)
    detector = Detector.load(one_process / "detector", device="cpu")
    samples = find_samples(detector.config.data).test
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the ranks: torch's convolutions round by the number of threads
    try:
        expected = repr(detector.evaluate(samples))
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "0.txt").read_text() == (tmp_path / "1.txt").read_text() == expected
    seen = [(tmp_path / f"{rank}.seen").read_text().split("\n") for rank in range(2)]
    assert seen == [[str(sample.path) for sample in samples[rank::2]] for rank in range(2)]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_torchrun_restarts_a_run_whose_process_was_killed(surface: Path, one_process: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1")
    launch = (*launcher, "--standalone", "-m", "twostage")
    command = (*launch, "train", str(run), f"--data.root={surface}", *QUICK, "--checkpoint-every=1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(run.glob("checkpoints/step-*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        for child in children(process.pid)[1:2]:
            os.kill(child, signal.SIGKILL)
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert "resuming at step" in output
    assert output.count("detector: ") == 1, "one process speaks"
    weights = load_checkpoint(run / "detector")
    assert weights.step == load_checkpoint(one_process / "detector").step
    found, expected = (json.loads((path / "evaluation.json").read_text()) for path in (run, one_process))
    assert [image["name"] for image in found["metrics"]["images"]] == [
        image["name"] for image in expected["metrics"]["images"]
    ]
    steps = [json.loads(line)["step"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert steps == list(range(max(steps) + 1)), "no step is missing or there twice"
