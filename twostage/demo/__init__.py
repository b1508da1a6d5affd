"""Images to try the method on: three photographed surfaces, and test defects that training never sees."""

from twostage.demo.blemishes import BLEMISHES, add_hole, add_missing_texture, add_scratch, add_stain, add_warp
from twostage.demo.surfaces import SURFACES, write_demo_images

__all__ = [
    "BLEMISHES",
    "SURFACES",
    "add_hole",
    "add_missing_texture",
    "add_scratch",
    "add_stain",
    "add_warp",
    "write_demo_images",
]
