"""Numbers of ImageType, Reduction and Form in csrc/similarity.h."""

import torch

TYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
REDUCTIONS = {"mean": 0, "sample": 1, "loss": 2, "none": 3}
FORMS = {"additive": 0, "product": 1, "contrast-structure": 2}
