"""Polygon cut, resize, blur and paste (Shiferaw & Yao 2024, Eq. 1), one slot of every image at a time."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# The blur kernel ends here, in standard deviations; its weights are normalised over the taps that remain.
BLUR_EXTENT = 3.0
# Below this many pixels a Gaussian of 3 sigma holds no second tap: the edge stays hard.
SMALLEST_BLUR = 1e-3


def polygon_mask(vertices: Tensor, vertex_count: Tensor, height: int, width: int) -> Tensor:
    """Even-odd fill at pixel centres (x + 0.5, y + 0.5): [P, 7, 2], [P] -> bool [P, H, W].

    An edge counts a centre that lies level with its lower end and not one level with its upper end, and only centres
    strictly to its left, so polygons that share an edge share no pixel.
    """
    slots = vertices.shape[1]
    index = torch.arange(slots, device=vertices.device)
    following = torch.where(index + 1 < vertex_count.unsqueeze(1), index + 1, torch.zeros_like(index))
    start = vertices
    end = vertices.gather(1, following.unsqueeze(2).expand(-1, -1, 2))
    x = torch.arange(width, dtype=vertices.dtype, device=vertices.device) + 0.5
    y = torch.arange(height, dtype=vertices.dtype, device=vertices.device) + 0.5
    inside = torch.zeros(vertices.shape[0], height, width, dtype=torch.bool, device=vertices.device)
    for edge in range(slots):
        x0, y0 = start[:, edge, 0].view(-1, 1), start[:, edge, 1].view(-1, 1)
        x1, y1 = end[:, edge, 0].view(-1, 1), end[:, edge, 1].view(-1, 1)
        spans = ((y0 <= y) != (y1 <= y)) & (edge < vertex_count).view(-1, 1)
        # Interpolating from the lower end gives both polygons beside a shared edge the same crossing to the last bit.
        flip = y1 < y0
        low_x, low_y = torch.where(flip, x1, x0), torch.where(flip, y1, y0)
        high_x, high_y = torch.where(flip, x0, x1), torch.where(flip, y0, y1)
        rise = torch.where(spans, high_y - low_y, torch.ones_like(low_y))
        crossing = low_x + (y - low_y) / rise * (high_x - low_x)
        inside ^= spans.unsqueeze(2) & (x < crossing.unsqueeze(2))
    return inside


def sample_source(source: Tensor, source_index: Tensor, transform: Tensor, height: int, width: int) -> Tensor:
    """Bilinear samples of ``source`` at ``transform`` applied to every target pixel centre: [P, C, H, W].

    Points outside the source read its nearest edge pixel.
    """
    x = torch.arange(width, dtype=transform.dtype, device=transform.device) + 0.5
    y = torch.arange(height, dtype=transform.dtype, device=transform.device) + 0.5
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack((grid_x, grid_y, torch.ones_like(grid_x)), dim=-1)
    points = torch.einsum("hwk,pjk->phwj", centres, transform)
    size = torch.tensor([source.shape[3], source.shape[2]], dtype=points.dtype, device=points.device)
    return F.grid_sample(
        source.index_select(0, source_index),
        points * 2 / size - 1,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def gaussian_blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur with one sigma for each sample; beyond the border there is nothing (zeros)."""
    radius = max(int(torch.ceil(BLUR_EXTENT * sigma.max()).item()), 1)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    window = torch.exp(-0.5 * (offsets / sigma.clamp_min(SMALLEST_BLUR).unsqueeze(1)) ** 2)
    window = torch.where(offsets.abs() <= torch.ceil(BLUR_EXTENT * sigma).unsqueeze(1), window, 0)
    window = window / window.sum(dim=1, keepdim=True)
    samples, channels, height, width = image.shape
    planes = image.reshape(1, samples * channels, height, width)
    kernel = window.repeat_interleave(channels, dim=0)
    planes = F.conv2d(planes, kernel.view(-1, 1, 1, 2 * radius + 1), padding=(0, radius), groups=samples * channels)
    planes = F.conv2d(planes, kernel.view(-1, 1, 2 * radius + 1, 1), padding=(radius, 0), groups=samples * channels)
    return planes.view_as(image)


def paste_defects(
    target: Tensor,
    source: Tensor,
    vertices: Tensor,
    vertex_count: Tensor,
    image_index: Tensor,
    source_index: Tensor,
    transform: Tensor,
    blur_sigma: Tensor,
    strength: Tensor,
) -> tuple[Tensor, Tensor]:
    """See :func:`twostage_kernels.paste_defects`."""
    compute = torch.float64 if target.dtype == torch.float64 else torch.float32
    image_index, source_index = image_index.long(), source_index.long()  # uint8 would index as a mask
    images = target.to(compute, copy=True)
    opacity = torch.zeros(target.shape[0], 1, *target.shape[2:], dtype=compute, device=target.device)
    for chosen in _layers(image_index, vertex_count):
        height, width = target.shape[2:]
        mask = polygon_mask(vertices[chosen].to(compute), vertex_count[chosen], height, width)
        mask = mask.unsqueeze(1)
        content = sample_source(source.to(compute), source_index[chosen], transform[chosen].to(compute), height, width)
        # Blurring the cut-out together with its mask keeps what lies outside the polygon out of the blurred edge.
        premultiplied = torch.cat((torch.where(mask, content, 0), mask.to(compute)), dim=1)
        cut = gaussian_blur(premultiplied, blur_sigma[chosen].to(compute))
        level = strength[chosen].to(compute).view(-1, 1, 1, 1)
        cut_content, cut_opacity = cut[:, :-1] * level, cut[:, -1:] * level
        owner = image_index[chosen]
        images[owner] = images[owner] * (1 - cut_opacity) + cut_content
        opacity[owner] = opacity[owner] * (1 - cut_opacity) + cut_opacity
    untouched = opacity == 0
    images = images.to(target.dtype) if target.dtype.is_floating_point else images.round().to(target.dtype)
    return torch.where(untouched, target, images), opacity.clamp(0, 1)


def _layers(image_index: Tensor, vertex_count: Tensor) -> list[Tensor]:
    """Polygons in groups that hold at most one of each image, in their order: later polygons lie on top."""
    layers: list[list[int]] = []
    depth: dict[int, int] = {}
    for polygon, (image, count) in enumerate(zip(image_index.tolist(), vertex_count.tolist(), strict=True)):
        if count == 0:
            continue
        layer = depth.get(image, 0)
        depth[image] = layer + 1
        if layer == len(layers):
            layers.append([])
        layers[layer].append(polygon)
    return [torch.tensor(layer, device=image_index.device) for layer in layers]
