"""Steps a second of both stages, alone and among processes: `[torchrun --nproc-per-node=N] -m benchmarks.scaling`."""

import argparse
import itertools
import json
import statistics
import time

import torch

from twostage.autoencoder import Autoencoder
from twostage.config import ComputeConfig, DefectConfig, LossConfig, ModelConfig, StageConfig
from twostage.data.patches import PatchStore
from twostage.defects import DefectSampler, SourcePool
from twostage.devices import choose_device
from twostage.distributed import joined
from twostage.trainer import StepReport, Trainer

PATCH, SIDE, IMAGES = 128, 256, 64


def measure(batch: int, steps: int, defective: bool, device: torch.device) -> float:
    """Median seconds of a step; LPIPS is left out, so that no weights are needed."""
    generator = torch.Generator().manual_seed(0)
    images = list(torch.randint(0, 256, (IMAGES, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator).to(device))
    torch.manual_seed(0)
    epochs = -(-steps * batch // (IMAGES * 4))
    trainer = Trainer(
        Autoencoder(1, ModelConfig()).to(device),
        (StageConfig(epochs, LossConfig("aw-ssim"), defective),),
        PatchStore(images, PATCH, 0),
        DefectSampler(DefectConfig(), SourcePool(images, None, 16), PATCH, 0),
        None,
        batch_size=batch,
        names=[str(index) for index in range(IMAGES)],
        fingerprint={},
        # Each step is waited for, so that each has its time.
        compute=ComputeConfig(log_every=1),
    )
    times = [time.perf_counter()]

    def on_step(report: StepReport) -> None:
        times.append(time.perf_counter())

    trainer.run(on_step=on_step)
    return statistics.median(later - before for before, later in itertools.pairwise(times[3:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=16, help="patches in a step, of all processes together")
    parser.add_argument("--steps", type=int, default=32)
    given = parser.parse_args()
    device = choose_device("auto")
    with joined(device) as ranks:
        for defective in (False, True):
            seconds = measure(given.batch, given.steps, defective, device)
            found = {
                "processes": ranks.size,
                "threads": torch.get_num_threads(),
                "device": str(device),
                "batch": given.batch,
                "defects": defective,
                "ms_a_step": round(1e3 * seconds, 1),
                "patches_per_second": round(given.batch / seconds, 1),
            }
            if ranks.first:
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
