"""Kernels of the compiled extension. ``unavailable`` says why there are none, or is None."""

from twostage_kernels.native.extension import instruction_sets, unavailable
from twostage_kernels.native.similarity import forced_instruction_set, similarity

__all__ = ["forced_instruction_set", "instruction_sets", "similarity", "unavailable"]
