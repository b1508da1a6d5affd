"""The paper in plain torch, float64-capable: the truth that every other backend is tested against."""

from twostage_kernels.reference.feature_distance import feature_distance
from twostage_kernels.reference.paste_defects import paste_defects
from twostage_kernels.reference.similarity import similarity

__all__ = ["feature_distance", "paste_defects", "similarity"]
