"""Read images, find data sets, check them, hold out validation images."""

from twostage.data.checks import check_images
from twostage.data.images import ImageInfo, choose_color, probe_image, read_image, read_mask, resize_shorter_side
from twostage.data.layout import find_samples
from twostage.data.samples import GOOD, Finding, ImageSet, Sample, require_clean
from twostage.data.split import split_validation

__all__ = [
    "GOOD",
    "Finding",
    "ImageInfo",
    "ImageSet",
    "Sample",
    "check_images",
    "choose_color",
    "find_samples",
    "probe_image",
    "read_image",
    "read_mask",
    "require_clean",
    "resize_shorter_side",
    "split_validation",
]
