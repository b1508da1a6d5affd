"""Fast image-similarity and defect-pasting ops for PyTorch. Importing this compiles, prints and downloads nothing."""

from twostage_kernels._version import __version__
from twostage_kernels.backends import available_backends
from twostage_kernels.functional import (
    aw_ssim,
    aw_ssim_loss,
    feature_distance,
    ms_ssim,
    paste_defects,
    ssim,
    ssim_loss,
)
from twostage_kernels.paste_arguments import BLEND_MODES

__all__ = [
    "BLEND_MODES",
    "__version__",
    "available_backends",
    "aw_ssim",
    "aw_ssim_loss",
    "feature_distance",
    "ms_ssim",
    "paste_defects",
    "ssim",
    "ssim_loss",
]
