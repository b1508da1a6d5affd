"""What the processes of the distributed tests do (here, so that they start quickly)."""

import json
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from training_fixtures import at_step, make_images, make_trainer, state_of

from twostage import Config, Detector, Progress
from twostage.batch_norm import BatchNorm
from twostage.config import ComputeConfig
from twostage.data import find_samples
from twostage.distributed import Ranks, joined
from twostage.errors import DataError
from twostage.stopping import TrainingInterrupted
from twostage.trainer import StepReport
from twostage.training_images import TrainingImages

CPU = torch.device("cpu")


def run_ranks(context: ForkServerContext, size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(ranks, *arguments)`` in processes that work together, and wait for their good end."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    processes = [context.Process(target=_start, args=(rank, size, port, work, arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * size


def _start(rank: int, size: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined(CPU) as ranks:
        work(ranks, *arguments)


def train(ranks: Ranks, checkpoints: Path, states: Path, until: int | None) -> None:
    """Resume, train on (to a step, with Ctrl-C in the last of the processes alone), and write every value to a file."""
    trainer = make_trainer(make_images(4), batch_size=4, double=True)
    trainer.resume(checkpoints)

    def interrupt() -> None:
        if ranks.rank == ranks.size - 1:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        # Several processes hear of a signal in the step after it.
        step = None if until is None else until - (ranks.size > 1)
        trainer.run(checkpoints=checkpoints, on_step=None if step is None else at_step(step, interrupt))
    except TrainingInterrupted:
        assert trainer.step == until
    safetensors.torch.save_file({k: v.contiguous() for k, v in state_of(trainer).items()}, states / f"{ranks.rank}")


def losses(ranks: Ranks, compute: ComputeConfig, folder: Path) -> None:
    """Train, and write the losses that this process was told."""
    trainer = make_trainer(make_images(4), batch_size=4, compute=compute)
    reports: list[StepReport] = []
    trainer.run(on_step=reports.append)
    (folder / f"{ranks.rank}.json").write_text(json.dumps([report.loss for report in reports]))


def normalise(ranks: Ranks, folder: Path) -> None:
    """The batch normalisation of this process's share of a batch, its gradients and its statistics."""
    values = ranks.share(normalised_batch())
    norm = BatchNorm(3).double()
    result = normalised(norm, values)
    safetensors.torch.save_file(result, folder / f"{ranks.rank}")


def normalised_batch() -> Tensor:
    return torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3


def normalised(norm: nn.BatchNorm2d, values: Tensor) -> dict[str, Tensor]:
    """The sum of squares weighed by place as a loss, and what comes of it."""
    values = values.clone().requires_grad_()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
    found = norm(values)
    weight = torch.linspace(-1, 2, found[0].numel(), dtype=torch.float64).view_as(found[0])
    (weight * found.square()).sum().backward()
    assert values.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    gradients = {"values": values.grad, "weight_gradient": norm.weight.grad, "bias_gradient": norm.bias.grad}
    return {"found": found.detach().contiguous(), **gradients, **state}


def evaluate(ranks: Ranks, detector: Path, results: Path) -> None:
    """Evaluate a detector on its test images, and write what every process gets."""
    loaded = Detector.load(detector, device="cpu")
    seen: list[str] = []
    found = loaded.evaluate(
        find_samples(loaded.config.data).test, on_prediction=lambda sample, *_: seen.append(str(sample.path))
    )
    (results / f"{ranks.rank}.txt").write_text(repr(found))
    (results / f"{ranks.rank}.seen").write_text("\n".join(seen))


def load_images(ranks: Ranks, config: Config, folder: Path) -> None:
    """Load the images of a data set in which something is wrong, and write what every process is told."""
    try:
        TrainingImages.load(config, Progress())
    except DataError as error:
        (folder / f"{ranks.rank}.txt").write_text(str(error))
