"""The paper in plain torch, float64-capable: the truth that every other backend is tested against."""

from twostage_kernels.reference.paste_defects import paste_defects
from twostage_kernels.reference.similarity import similarity

__all__ = ["paste_defects", "similarity"]
