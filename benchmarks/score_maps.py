"""Every score map of finished runs on their test images: what the reconstruction alone tells, and what features add.

    python -m benchmarks.score_maps RUN [RUN ...] >> benchmarks/results/score_maps.jsonl

One JSON line for each run and map. Maps are evaluated at the size that images are scored at, masks resized to it.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from twostage import Detector
from twostage.data import find_samples, read_image, read_mask, resize_shorter_side
from twostage.data.packing import to_unit_range
from twostage.evaluation import Evaluator
from twostage.lpips import LPIPS, load_lpips_weights
from twostage.run_folder import RunFolder
from twostage.scoring import COMBINED, base_maps, image_score, score_map
from twostage.tiling import PATCHES_AT_ONCE, reconstruct


def evaluate_maps(run: Path, lpips: LPIPS) -> Iterator[dict[str, Any]]:
    """One row for each map that the run's calibration knows."""
    detector = Detector.load(RunFolder(run).detector, device="cpu")
    config, calibration = detector.config, detector.calibration
    known_lpips = lpips if calibration.normal_features is not None else None
    evaluators: dict[str, Evaluator] = {}
    for sample in find_samples(config.data).test:
        stored = read_image(sample.path, color=detector.color, max_pixels=config.data.max_pixels)
        image = to_unit_range(resize_shorter_side(stored, config.data.image_size))
        rebuilt = reconstruct(
            detector.model,
            image,
            patch_size=config.model.patch_size,
            overlap=config.scoring.overlap,
            batch_size=PATCHES_AT_ONCE,
        )
        maps = base_maps(image, rebuilt, known_lpips, calibration.normal_features)
        mask = None
        if sample.mask is not None:
            full = read_mask(sample.mask, max_pixels=config.data.max_pixels)
            mask = F.interpolate(full[None, None].float(), size=image.shape[1:], mode="nearest")[0, 0] > 0
        for name in (*maps, COMBINED):
            scores = score_map(maps, name, config.scoring.smoothing or 0.0, calibration.spreads)
            score = image_score(scores, config.scoring.image_fraction)
            evaluators.setdefault(name, Evaluator()).add(scores, mask, score, sample.kind, name=str(sample.path))
    for name, evaluator in evaluators.items():
        found = evaluator.result().overall
        yield {
            "run": run.name,
            "map": name,
            "pixel_auroc": found.pixel_auroc,
            "image_auroc": found.image_auroc,
            "aupro": found.aupro,
        }


def main() -> int:
    if len(sys.argv) < 2:
        print("usage: python -m benchmarks.score_maps RUN [RUN ...]", file=sys.stderr)
        return 2
    lpips = LPIPS(load_lpips_weights())
    for argument in sys.argv[1:]:
        for row in evaluate_maps(Path(argument), lpips):
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
