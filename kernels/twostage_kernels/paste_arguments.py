"""What ``paste_defects`` takes for its polygons, in the order in which every backend and operator takes it."""

from typing import Any, NamedTuple

from torch import Tensor

MAX_VERTICES = 7
MAX_BLUR_SIGMA = 64.0  # pixels
MAX_EDGE_AMPLITUDE = 64.0  # pixels
BLEND_MODES = ("normal", "multiply", "screen", "darken", "lighten", "grain_merge")
"""What the numbers in ``blend_mode`` mean."""


class Polygons(NamedTuple):
    """P polygons of all images, in the order they are pasted. See :func:`twostage_kernels.paste_defects`."""

    vertices: Tensor  # [P, 7, 2] target pixels, (x, y)
    vertex_count: Tensor  # [P] 3..7, or 0 for an empty slot, whose other values are never looked at
    image_index: Tensor | None  # [P]; None: polygon p belongs to image p // (P / B)
    source_index: Tensor  # [P]
    source_layout: Tensor | None  # [S, 3] offset, height, width of each image in a packed source
    transform: Tensor  # [P, 2, 3]
    blur_sigma: Tensor  # [P]
    strength: Tensor | None = None  # [P]; None is 1
    color_gain: Tensor | None = None  # [P, C]; None is 1
    color_offset: Tensor | None = None  # [P, C]; None is 0
    blend_mode: Tensor | None = None  # [P] index into BLEND_MODES; None is 0
    edge_amplitude: Tensor | None = None  # [P]; None: straight edges, and the next two are None as well
    edge_grain: Tensor | None = None  # [P]
    edge_seed: Tensor | None = None  # [P]

    def pick(self, chosen: Tensor) -> "Polygons":
        """Those with the given numbers."""
        picked: dict[str, Any] = {
            name: value if value is None or name == "source_layout" else value[chosen]
            for name, value in self._asdict().items()
        }
        return Polygons(**picked)
