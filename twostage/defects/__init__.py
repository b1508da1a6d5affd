"""Artificial defects: where they are cut from, how they are drawn, what they look like."""

from twostage.defects.pools import Pool, SampledPool, SourcePool
from twostage.defects.sampler import DefectSampler, Polygons

__all__ = ["DefectSampler", "Polygons", "Pool", "SampledPool", "SourcePool"]
