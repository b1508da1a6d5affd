"""Which of our own backends are timed."""

import torch

from twostage_kernels import available_backends


def timed_backends(op: str, device: torch.device | str) -> list[str]:
    """Those of ``op`` on ``device``; the reference where there is no other."""
    return [name for name in available_backends(op, device) if name != "reference"] or ["reference"]
