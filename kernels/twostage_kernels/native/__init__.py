"""Kernels of the compiled extension. ``unavailable`` says why there are none, or is None."""

from twostage_kernels.native.extension import forced_instruction_set, instruction_sets, unavailable
from twostage_kernels.native.paste_defects import paste_defects
from twostage_kernels.native.similarity import similarity

__all__ = ["forced_instruction_set", "instruction_sets", "paste_defects", "similarity", "unavailable"]
