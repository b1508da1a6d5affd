"""A self-contained HTML page of a run's result, and the pictures it is made of."""

from twostage.report.example import Example, Verdict
from twostage.report.page import ReportBuilder
from twostage.report.pictures import heat_map, mask_picture, overlay, plain_picture, residual_picture, save_png

__all__ = [
    "Example",
    "ReportBuilder",
    "Verdict",
    "heat_map",
    "mask_picture",
    "overlay",
    "plain_picture",
    "residual_picture",
    "save_png",
]
