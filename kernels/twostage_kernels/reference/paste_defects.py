"""Polygon cut, resize, blur and paste (Shiferaw & Yao 2024, Eq. 1), one polygon of every image at a time."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage_kernels.paste_arguments import Polygons
from twostage_kernels.paste_checks import require_values
from twostage_kernels.precision import sum_dtype
from twostage_kernels.reference.edge_noise import SUBPIXELS, displacement

# The blur kernel ends here, in standard deviations; its weights are normalised over the taps that remain.
BLUR_EXTENT = 3.0
# Below this many pixels a Gaussian of 3 sigma holds no second tap: the edge stays hard.
SMALLEST_BLUR = 1e-3


def polygon_mask(vertices: Tensor, vertex_count: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Even-odd fill: whether points lie inside, [P, 7, 2], [P], [P or 1, ...] twice -> bool [P, H, W].

    An edge counts a point that lies level with its lower end and not one level with its upper end, and only points
    strictly to its left, so polygons that share an edge share no point.
    """
    slots = vertices.shape[1]
    index = torch.arange(slots, device=vertices.device)
    following = torch.where(index + 1 < vertex_count.unsqueeze(1), index + 1, torch.zeros_like(index))
    start = vertices
    end = vertices.gather(1, following.unsqueeze(2).expand(-1, -1, 2))
    inside = torch.zeros((), dtype=torch.bool, device=vertices.device)
    for edge in range(slots):
        x0, y0 = start[:, edge, 0].view(-1, 1, 1), start[:, edge, 1].view(-1, 1, 1)
        x1, y1 = end[:, edge, 0].view(-1, 1, 1), end[:, edge, 1].view(-1, 1, 1)
        spans = ((y0 <= y) != (y1 <= y)) & (edge < vertex_count).view(-1, 1, 1)
        # Interpolating from the lower end gives both polygons beside a shared edge the same crossing to the last bit.
        flip = y1 < y0
        low_x, low_y = torch.where(flip, x1, x0), torch.where(flip, y1, y0)
        high_x, high_y = torch.where(flip, x0, x1), torch.where(flip, y0, y1)
        rise = torch.where(spans, high_y - low_y, torch.ones_like(low_y))
        crossing = low_x + (y - low_y) / rise * (high_x - low_x)
        inside = inside ^ (spans & (x < crossing))
    return inside


def pixel_mask(polygons: Polygons, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """The pixels inside each polygon by the even-odd rule at their centres (x + 0.5, y + 0.5): bool [P, H, W].

    With an edge amplitude a pixel is inside where its displaced centre is.
    """
    device = polygons.vertices.device
    x = torch.arange(width, device=device).view(1, 1, -1) * SUBPIXELS + SUBPIXELS // 2
    y = torch.arange(height, device=device).view(1, -1, 1) * SUBPIXELS + SUBPIXELS // 2
    if polygons.edge_amplitude is not None:
        assert polygons.edge_grain is not None
        assert polygons.edge_seed is not None
        amplitude, grain = polygons.edge_amplitude.to(dtype), polygons.edge_grain.to(dtype)
        along, down = displacement(amplitude, grain, polygons.edge_seed, height, width)
        x, y = x + along, y + down
    x, y = (number.to(dtype) / SUBPIXELS for number in (x, y))
    return polygon_mask(polygons.vertices.to(dtype), polygons.vertex_count, x, y)


def sample_source(
    source: Tensor, layout: Tensor, channels: int, transform: Tensor, height: int, width: int, dtype: torch.dtype
) -> Tensor:
    """Bilinear samples at ``transform`` applied to every target pixel centre: [P, C, H, W].

    Points outside a source image read its nearest edge pixel. ``source`` is flat; ``layout`` [P, 3] says where in it
    each polygon's image begins, and its height and width. Positions are held in float64.
    """
    x = torch.arange(width, dtype=torch.float64, device=source.device).view(1, 1, 1, -1) + 0.5
    y = torch.arange(height, dtype=torch.float64, device=source.device).view(1, 1, -1, 1) + 0.5
    offset, rows, columns = (layout[:, entry].view(-1, 1, 1, 1) for entry in range(3))
    linear = transform.to(torch.float64).view(-1, 2, 3, 1, 1, 1)

    def position(axis: int, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pixels before and behind a point, and its distance from the first."""
        point = linear[:, axis, 0] * x + linear[:, axis, 1] * y + linear[:, axis, 2] - 0.5
        point = torch.minimum(point.clamp_min(0), (size - 1).to(torch.float64))
        first = point.floor()
        return first.long(), torch.minimum(first.long() + 1, size - 1), (point - first).to(dtype)

    left, right, along = position(0, columns)
    top, bottom, down = position(1, rows)
    plane = offset + torch.arange(channels, device=source.device).view(1, -1, 1, 1) * (rows * columns)

    def pixels(row: Tensor, column: Tensor) -> Tensor:
        return source[plane + row * columns + column].to(dtype)

    upper, lower = pixels(top, left), pixels(bottom, left)
    upper = upper + along * (pixels(top, right) - upper)
    lower = lower + along * (pixels(bottom, right) - lower)
    return upper + down * (lower - upper)


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


def mixed(below: Tensor, above: Tensor, mode: Tensor, value_range: tuple[float, float]) -> Tensor:
    """The two images' values under each polygon's blend mode."""
    low, high = value_range
    b, a = (below - low) / (high - low), (above - low) / (high - low)
    values = (a, b * a, 1 - (1 - b) * (1 - a), torch.minimum(b, a), torch.maximum(b, a), (b + a - 0.5).clamp(0, 1))
    mode = mode.view(-1, 1, 1, 1)
    result = values[0]
    for number, value in enumerate(values):
        result = torch.where(mode == number, value, result)
    return low + result * (high - low)


def cut_outs(
    source: Tensor,
    layouts: Tensor,
    polygons: Polygons,
    shape: torch.Size,
    dtype: torch.dtype,
    scale: float,
    value_range: tuple[float, float],
) -> Tensor:
    """Blurred cut-outs, premultiplied, and their blurred masks as the last channel: [P, C + 1, H, W]."""
    channels, height, width = shape[1:]
    mask = pixel_mask(polygons, height, width, dtype).unsqueeze(1)
    layout = layouts[polygons.source_index.long()]
    content = scale * sample_source(source, layout, channels, polygons.transform, height, width, dtype)
    if polygons.color_gain is not None or polygons.color_offset is not None:
        if polygons.color_gain is not None:
            content = content * polygons.color_gain.to(dtype).unflatten(1, (-1, 1, 1))
        if polygons.color_offset is not None:
            content = content + polygons.color_offset.to(dtype).unflatten(1, (-1, 1, 1))
        content = content.clamp(*value_range)
    # Blurring the cut-out together with its mask keeps what lies outside the polygon out of the blurred edge.
    premultiplied = torch.cat((torch.where(mask, content, 0), mask.to(dtype)), dim=1)
    return gaussian_blur(premultiplied, polygons.blur_sigma.to(dtype))


def paste_defects(
    target: Tensor, source: Tensor, polygons: Polygons, value_range: tuple[float, float], out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`twostage_kernels.paste_defects`."""
    require_values(target, source, polygons)
    compute = sum_dtype(target)
    scale = 1 / 255 if source.dtype == torch.uint8 and target.dtype != torch.uint8 else 1.0
    layouts = stacked_layout(source) if polygons.source_layout is None else polygons.source_layout.long()
    image_index = owners(polygons, target.shape[0])
    images = target.to(compute, copy=True)
    opacity = torch.zeros(target.shape[0], 1, *target.shape[2:], dtype=compute, device=target.device)
    for chosen in _layers(image_index, polygons.vertex_count):
        layer = polygons.pick(chosen)
        cut = cut_outs(source.reshape(-1), layouts, layer, target.shape, compute, scale, value_range)
        level = 1 if layer.strength is None else layer.strength.to(compute).view(-1, 1, 1, 1)
        cut_opacity = cut[:, -1:] * level
        owner = image_index[chosen]
        below = images[owner]
        blended = below * (1 - cut_opacity) + cut[:, :-1] * level
        if layer.blend_mode is not None:
            above = mixed(below, cut[:, :-1] / cut[:, -1:], layer.blend_mode, value_range)
            plain = (layer.blend_mode == 0).view(-1, 1, 1, 1)
            blended = torch.where(plain, blended, below * (1 - cut_opacity) + above * cut_opacity)
        images[owner] = torch.where(cut_opacity > 0, blended, below)
        opacity[owner] = opacity[owner] * (1 - cut_opacity) + cut_opacity
    untouched = opacity == 0
    images = images.to(target.dtype) if target.dtype.is_floating_point else images.round().clamp(0, 255).to(torch.uint8)
    images = torch.where(untouched, target, images)
    opacity = opacity.clamp(0, 1)
    return (torch.empty_like(target) if out is None else out).copy_(images), opacity


def stacked_layout(source: Tensor) -> Tensor:
    """Where the images of a stacked source [S, C, h, w] lie when it is flat: [S, 3]."""
    count, channels, height, width = source.shape
    offset = torch.arange(count, device=source.device) * (channels * height * width)
    size = torch.tensor([height, width], device=source.device).expand(count, 2)
    return torch.cat((offset.unsqueeze(1), size), dim=1)


def owners(polygons: Polygons, batch: int) -> Tensor:
    """The image each polygon belongs to: int64 [P]."""
    if polygons.image_index is not None:
        return polygons.image_index.long()  # uint8 would index as a mask
    count = len(polygons.vertex_count)
    slots = count // max(batch, 1)
    return torch.arange(count, device=polygons.vertices.device) // max(slots, 1)


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
