"""Pixel metrics of a large test set in bounded memory: `python -m benchmarks.evaluate_pixels`.

714 maps of 512x512 (187 million pixels) with scores as detectors give them, half of the images with a defect. The value
must be that of all scores sorted, which takes memory for all of them: in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from twostage.evaluation import Evaluator

SIDE = 512


def maps(images: int) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]]:
    """Scores [512, 512] and where the defect is."""
    for number in range(images):
        generator = np.random.default_rng(number)
        scores = generator.gamma(2.0, 0.02, (SIDE, SIDE)).astype(np.float32)
        if number % 2 == 0:
            yield scores, None
            continue
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        for top, left, size in generator.integers(10, 120, (3, 3)):
            mask[top * 3 : top * 3 + size, left * 3 : left * 3 + size] = True
        scores[mask] *= generator.uniform(1.0, 4.0)
        yield scores, mask


def by_evaluator(images: int) -> dict[str, float]:
    evaluator = Evaluator()
    seconds = 0.0
    for number, (scores, mask) in enumerate(maps(images)):
        started = time.perf_counter()
        evaluator.add(scores, mask, float(scores.max()), "good" if mask is None else "spot", name=str(number))
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    found = evaluator.result().overall
    return {
        "pixel_auroc": found.pixel_auroc,
        "aupro": found.aupro,
        "aupro_bound": found.aupro_bound,
        "seconds_adding": seconds,
        "seconds_result": time.perf_counter() - started,
    }


def by_sorting(images: int) -> dict[str, float]:
    """The chance that a defective pixel scores above a normal one, ties counting half: from all scores."""
    normal, defective = [], []
    for scores, mask in maps(images):
        normal.append(scores.ravel() if mask is None else scores[~mask])
        if mask is not None:
            defective.append(scores[mask])
    started = time.perf_counter()
    ordered = np.sort(np.concatenate(normal))
    del normal
    won = 0
    for part in defective:
        below, up_to = (np.searchsorted(ordered, part, side=side) for side in ("left", "right"))
        won += int(below.sum()) + int(up_to.sum())
    pairs = 2 * len(ordered) * sum(map(len, defective))
    return {"pixel_auroc": won / pairs, "seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=714)
    parser.add_argument("--part", choices=("by_evaluator", "by_sorting"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        found = {"by_evaluator": by_evaluator, "by_sorting": by_sorting}[given.part](given.images)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"way": given.part, "pixels": given.images * SIDE**2, **found, "peak_mb": round(peak, 1)}))
        return
    values = []
    for part in ("by_evaluator", "by_sorting"):
        command = [sys.executable, "-m", "benchmarks.evaluate_pixels", "--part", part, "--images", str(given.images)]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(line, end="", flush=True)
        values.append(json.loads(line)["pixel_auroc"])
    if values[0] != values[1]:
        raise SystemExit("the two values of pixel_auroc differ")


if __name__ == "__main__":
    main()
