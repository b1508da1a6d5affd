"""The public ops: docstring, checks, precision. What runs underneath is chosen in ``backends``."""

from twostage_kernels.functional.feature_distance import feature_distance
from twostage_kernels.functional.multiscale import ms_ssim
from twostage_kernels.functional.paste_defects import paste_defects
from twostage_kernels.functional.similarity import aw_ssim, aw_ssim_loss, ssim, ssim_loss

__all__ = ["aw_ssim", "aw_ssim_loss", "feature_distance", "ms_ssim", "paste_defects", "ssim", "ssim_loss"]
