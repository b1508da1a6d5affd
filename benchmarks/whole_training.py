"""The paper's whole schedule for one category: `python -m benchmarks.whole_training`.

280 images of 512x512 (4,480 patches), 15 epochs of the first stage and 10 of the second, from files on the disk to a
calibrated detector. The images are made up: what is timed does not depend on what they show. The second stage needs the
LPIPS weights (environment: TWOSTAGE_LPIPS_WEIGHTS).
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image

from twostage import Config, DataConfig, Detector, Progress
from twostage.config import ComputeConfig, Precision
from twostage.devices import choose_device


class Seconds(Progress):
    """How long each part of the work takes, from the end of the part before it to its own."""

    def __init__(self) -> None:
        self.of: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        now = time.perf_counter()
        self.of[f"{task}, {detail.partition('  ')[0]}" if detail else task] += now - self._last
        self._last = now


def make_images(root: Path, count: int, side: int, channels: int) -> None:
    """Soft stripes under noise, each image with phases of its own."""
    folder = root / "train/good"
    folder.mkdir(parents=True)
    x = np.arange(side)
    for number in range(count):
        generator = np.random.default_rng(number)
        stripes = 128 + 40 * np.sin(2 * np.pi * (x + generator.uniform(0, 24)) / generator.uniform(18, 24))
        pixels = stripes[:, None] + generator.normal(0, 8, (side, side, channels))
        if channels == 1:
            pixels = pixels[..., 0]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.png", compress_level=1)


def measure(config: Config) -> dict[str, float]:
    """Seconds of every part, and of the whole."""
    device = choose_device(config.device)
    started = time.perf_counter()
    seconds = Seconds()
    Detector.fit(config, progress=seconds)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {**{name: round(value, 2) for name, value in seconds.of.items()}, "whole": time.perf_counter() - started}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=280)
    parser.add_argument("--side", type=int, default=512, help="of the images, in pixels")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--epochs", type=int, nargs=2, default=(15, 10), help="of the two stages")
    parser.add_argument("--batch-size", type=int, default=Config().batch_size)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=get_args(Precision), default=Config().compute.precision)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cuda-graph", action="store_true")
    parser.add_argument("--without-lpips", action="store_true", help="in neither loss nor score map")
    given = parser.parse_args(arguments)
    config = Config(
        data=DataConfig(image_size=given.side),
        batch_size=given.batch_size,
        device=given.device,
        compute=ComputeConfig(precision=given.precision, compile=given.compile, cuda_graph=given.cuda_graph),
    )
    first, second = (
        replace(stage, epochs=epochs)
        for stage, epochs in zip((config.first_stage, config.second_stage), given.epochs, strict=True)
    )
    if given.without_lpips:
        second = replace(second, loss=replace(second.loss, name="aw-ssim"))
        config = replace(config, scoring=replace(config.scoring, lpips=False, map="residual"))
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), given.images, given.side, given.channels)
        data = replace(config.data, root=Path(folder))
        seconds = measure(replace(config, data=data, first_stage=first, second_stage=second))
    device = choose_device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(json.dumps({**vars(given), "device": name, "torch": torch.__version__, "seconds": seconds}))


if __name__ == "__main__":
    main()
