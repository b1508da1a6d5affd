"""Kernels of the compiled extensions. ``unavailable`` says why there are none, or is None."""

from twostage_kernels.native.cuda import architectures, why_no_cuda
from twostage_kernels.native.extension import forced_instruction_set, instruction_sets, threads, unavailable
from twostage_kernels.native.feature_distance import feature_distance
from twostage_kernels.native.paste_defects import paste_defects
from twostage_kernels.native.similarity import objection, similarity

__all__ = [
    "architectures",
    "feature_distance",
    "forced_instruction_set",
    "instruction_sets",
    "objection",
    "paste_defects",
    "similarity",
    "threads",
    "unavailable",
    "why_no_cuda",
]
