"""Unsupervised surface-defect detection by an autoencoder trained in two stages (Shiferaw & Yao 2024)."""

from twostage.config import (
    Config,
    DataConfig,
    DefectConfig,
    LossConfig,
    ModelConfig,
    ScoringConfig,
    StageConfig,
)
from twostage.detector import Detector, Prediction
from twostage.progress import Progress
from twostage_kernels import __version__

__all__ = [
    "Config",
    "DataConfig",
    "DefectConfig",
    "Detector",
    "LossConfig",
    "ModelConfig",
    "Prediction",
    "Progress",
    "ScoringConfig",
    "StageConfig",
    "__version__",
]
