"""Which home training images get: memory, or a cache on the disk."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from twostage.config import DataConfig
from twostage.data.images import probe_image
from twostage.data.samples import Sample
from twostage.errors import DataError

_PROBED = 64
_SHARE_OF_MEMORY = 0.4
_VERSION = "1"


def choose_home(
    config: DataConfig, samples: Sequence[Sample], device: torch.device, processes: int
) -> Literal["memory", "cache"]:
    """Memory where the images take at most two fifths of what is free of it, else the cache.

    Args:
        config: may name the home.
        samples: the training images; some of their headers are read.
        processes: of this machine that keep images in memory.
    """
    if config.home in ("memory", "cache"):
        return config.home
    wanted = estimated_bytes(config, samples)
    return "memory" if wanted * processes <= _SHARE_OF_MEMORY * free_memory(device) else "cache"


def estimated_bytes(config: DataConfig, samples: Sequence[Sample]) -> int:
    """What all images take in memory, from those headers of some of them that can be read.

    One image in colour makes all of them so, and one of more than 8 bits makes all floating-point.
    """
    pixels, channels, bytes_each, probed = 0.0, 1, 1, 0
    for sample in samples[:: -(-len(samples) // _PROBED) or 1]:
        try:
            info = probe_image(sample.path, max_pixels=config.max_pixels)
        except DataError:
            continue
        probed += 1
        if config.color == "rgb" or (config.color == "auto" and info.channels != "gray"):
            channels = 3
        if info.bits != 8:
            bytes_each = 4
        scale = 1.0 if config.image_size is None else config.image_size / min(info.width, info.height)
        pixels += info.width * info.height * scale**2
    return int(pixels / max(probed, 1) * len(samples) * channels * bytes_each)


def free_memory(device: torch.device) -> int:
    """Bytes: of the GPU, or of this machine as far as its control group lets the process have them."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = 1024 * int(line.split()[1])
    for line in _lines(Path("/sys/fs/cgroup/memory.max")):
        if line.isdigit():
            free = min(free, int(line))
    return free


def cache_folder(config: DataConfig, color: str) -> Path:
    """Where images prepared in this way are cached."""
    base = config.cache
    if base is None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twostage"
    place = os.path.abspath(config.manifest or config.root or "")  # noqa: PTH100 (links stay)
    described = "\0".join((_VERSION, place, str(config.image_size), color))
    return base / hashlib.blake2b(os.fsencode(described), digest_size=8).hexdigest()


def said(home: str, count: int, held: int, place: str) -> str:
    """One line about where the images are."""
    return f"data: {count:,} training images, {held / 1e6:,.1f} MB, in {home} ({place})"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
