"""Host memory of a training over the size of the set, for each home of the data: `python -m benchmarks.homes_memory`.

Every measurement is a process of its own. Shards of random 64x64 images, and a cache of them, are written first without
decoding any file (the pixels of one image come again and again), so that a million images take minutes, not hours. What
is measured is what training does: the index is opened, batches are drawn in the order of an epoch and read ahead, and
defects are ranked for them.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from twostage.config import DataConfig
from twostage.data import cache as cache_module
from twostage.data.cache import ImageCache
from twostage.data.listing import files_in
from twostage.data.mapped import MappedPatches
from twostage.data.order import Lanes, evenly_spread
from twostage.data.prepared import Prepared, PreparedImage, Preparer
from twostage.data.samples import GOOD, Sample
from twostage.data.shards import open_shards, write_shards
from twostage.defects import SampledPool
from twostage.defects.appearance import describe

SIDE, PATCH, BATCH, STEPS = 64, 64, 64, 3000
CONFIG = DataConfig(image_size=SIDE)


class Synthetic(Preparer):
    """Images without files behind them."""

    def __call__(self, path: Path) -> PreparedImage:
        number = int(path.stem)
        pixels = np.roll(_noise(), number % 4093).reshape(1, SIDE, SIDE)
        features = np.full(4, number % 977, dtype=np.float32)
        return PreparedImage(pixels, features, number)


def _noise() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, SIDE * SIDE, dtype=np.uint8)


def write(home: str, folder: Path, count: int) -> None:
    """Write a set of ``count`` images."""
    preparer = Synthetic(CONFIG, "gray", describe)
    if home == "shards":
        samples = [Sample(Path(f"{number}.png"), GOOD) for number in range(count)]
        write_shards(folder, samples, samples[:2], preparer, seed=0, images_per_shard=1000)
    else:
        _opened_cache(folder, count)


def _opened_cache(folder: Path, count: int) -> tuple[Prepared, Sequence[Path]]:
    """The images, and the list of their files, which a training keeps to name them."""
    cache = ImageCache(folder, Synthetic(CONFIG, "gray", describe))
    paths = files_in(Path(), (f"{number}.png" for number in range(count)))
    prepared, findings = cache.open(paths)
    assert prepared is not None, findings
    return prepared, paths


def train(home: str, folder: Path, count: int) -> dict[str, float]:
    """What the host's memory sees of a training, without the training."""
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    started = time.perf_counter()
    if home == "cache":
        (prepared, paths), order = _opened_cache(folder, count), None
    else:
        shards = open_shards(folder, CONFIG)
        prepared, paths, order = shards.train, (), Lanes(shards.images_in_shard, 64, 0)
    opened = time.perf_counter() - started
    peak_opened = _peak_mb()
    store = MappedPatches(prepared.images, PATCH, 0, cpu, order)
    chosen = evenly_spread(count, 512)
    pool = SampledPool(prepared.features, [prepared.images[index] for index in chosen.tolist()], chosen, 16)
    batches = [np.arange(step * BATCH, (step + 1) * BATCH) % (count // BATCH * BATCH) for step in range(STEPS)]
    started = time.perf_counter()
    for step, places in enumerate(batches):
        if step + 4 < STEPS:
            store.prepare(store.samples_at(torch.from_numpy(batches[step + 4]), 0), 0)
        samples = store.samples_at(torch.from_numpy(places), 0)
        store.patches(samples, 0)
        pool.candidates_of(store.image_of(samples))
    seconds = time.perf_counter() - started
    assert home == "shards" or len(paths) == count
    return {
        "seconds_to_open": opened,
        "peak_mb_opened": peak_opened,
        "peak_mb": _peak_mb(),
        "own_mb": _own_mb(),
        "patches_per_second": STEPS * BATCH / seconds,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _own_mb() -> float:
    """What the process holds now apart from pages of files, which the system takes back when it needs them."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _without_files() -> None:
    """The cache asks for every file's size and time of change, and reads it; these have none."""
    cache_module._stat = lambda path: (int(path.stem) + 1, 1, 1)
    ImageCache._prepare = lambda self, path, row: (b"x", self.preparer(path))  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--homes", nargs="+", default=["cache", "shards"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--part", nargs=4, metavar=("DO", "HOME", "FOLDER", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    _without_files()
    if given.part:
        do, home, folder, count = given.part
        if do == "write":
            write(home, Path(folder), int(count))
            print(json.dumps({"peak_mb_writing": _peak_mb()}))
        else:
            print(json.dumps(train(home, Path(folder), int(count))))
        return
    for home in given.homes:
        for count in given.counts:
            folder = Path(tempfile.mkdtemp(dir=given.folder))
            values: dict[str, float] = {}
            for do in ("write", "train"):
                command = [sys.executable, "-m", "benchmarks.homes_memory", "--part", do, home, str(folder), str(count)]
                values |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            shutil.rmtree(folder)
            print(
                json.dumps({"home": home, "images": count, **{key: round(value, 1) for key, value in values.items()}})
            )


if __name__ == "__main__":
    main()
