"""The paper in plain torch, float64-capable: the truth that every other backend is tested against."""

from twostage_kernels.reference.aw_ssim import aw_ssim_map, ssim_map
from twostage_kernels.reference.paste_defects import paste_defects
from twostage_kernels.reference.similarity import similarity

__all__ = ["aw_ssim_map", "paste_defects", "similarity", "ssim_map"]
