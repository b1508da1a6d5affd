"""Artificial defects: where they are cut from, how they are drawn, what they look like."""

from twostage.defects.sampler import DefectSampler, Polygons
from twostage.defects.sources import SourcePool

__all__ = ["DefectSampler", "Polygons", "SourcePool"]
