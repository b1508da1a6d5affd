"""The gallery: for every test image input, reconstruction, residual, mask and overlay, with score and verdict."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from twostage.evaluation import GOOD
from twostage.report.example import Example, Verdict
from twostage.report.markup import counted, figure, text
from twostage.report.pictures import Picture, mask_picture, overlay, plain_picture, residual_picture

_QUALITY = 82
# Thin coloured lines would lose their colour at the halved colour resolution of lossy WebP and ordinary JPEG.
_LINE_QUALITY = 85
_MARKS = {Verdict.FOUND: "✓", Verdict.PASSED: "✓", Verdict.MISSED: "✗", Verdict.FALSE_ALARM: "!"}


@dataclass(frozen=True)
class EncodedPicture:
    """A picture as the bytes of an image file."""

    data: bytes
    media_type: str
    width: int
    height: int

    @property
    def data_uri(self) -> str:
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Row:
    """An example as the gallery keeps it."""

    name: str
    kind: str
    score: float
    verdict: Verdict
    pictures: dict[str, EncodedPicture | None]
    """By caption, in the order shown; None where there is no mask."""


def render_row(example: Example, *, threshold: float, map_range: tuple[float, float], max_side: int) -> Row:
    """Draw and encode the pictures of an example, at most ``max_side`` pixels on their longer side.

    Images, reconstructions and residuals are averaged when they shrink; of masks and scores the highest value counts,
    so that no small defect vanishes.
    """
    height, width = example.image.shape[1:]
    shrink = min(1.0, max_side / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    image = _averaged(example.image, size)
    mask = None if example.mask is None else _highest(example.mask.float(), size) > 0
    laid_over = overlay(image, _highest(example.score_map, size), *map_range, mask=mask, threshold=threshold)
    residual = _averaged(example.residual.unsqueeze(0), size)[0]
    pictures = {
        "input": _encoded(plain_picture(image)),
        "reconstruction": _encoded(plain_picture(_averaged(example.reconstruction, size))),
        "residual": _encoded(residual_picture(residual)),
        "mask": None if mask is None else _encoded_mask(mask_picture(mask)),
        "score": _encoded_lines(laid_over),
    }
    verdict = Verdict.of(example.kind, example.score, threshold)
    return Row(example.name, example.kind, example.score, verdict, pictures)


def gallery(rows: Sequence[Row], threshold: float) -> str:
    """All rows, a section for each kind (good last), in each the detector's worst first."""
    kinds = sorted({row.kind for row in rows}, key=lambda kind: (kind == GOOD, kind))
    return "".join(_section(kind, [row for row in rows if row.kind == kind], threshold) for kind in kinds)


def _section(kind: str, rows: Sequence[Row], threshold: float) -> str:
    worst_first = sorted(rows, key=lambda row: (-row.score if kind == GOOD else row.score, row.name))
    wrong = sum(not row.verdict.correct for row in rows)
    wrong_word = counted(wrong, "false alarm") if kind == GOOD else f"{wrong} missed"
    order = "highest score first" if kind == GOOD else "lowest score first"
    articles = "".join(_article(row, threshold) for row in worst_first)
    return (
        f'<details class="kind" open><summary><h3><bdi>{text(kind)}</bdi></h3> '
        f"<span>{counted(len(rows), 'image')}, {wrong_word}; {order}</span></summary>{articles}</details>"
    )


def _article(row: Row, threshold: float) -> str:
    side = "above" if row.score > threshold else "not above"
    css = "right" if row.verdict.correct else "wrong"
    figures = "".join(_figure(row, caption, picture) for caption, picture in row.pictures.items())
    return (
        f'<article class="example {css}"><header><h4><bdi>{text(row.name)}</bdi></h4>'
        f'<p class="verdict"><span aria-hidden="true">{_MARKS[row.verdict]}</span> {text(row.verdict.value)}</p>'
        f"<p>score <strong>{text(figure(row.score))}</strong> "
        f'<span class="beside">{side} {text(figure(threshold))}</span></p></header>'
        f'<div class="pictures">{figures}</div></article>'
    )


def _figure(row: Row, caption: str, picture: EncodedPicture | None) -> str:
    if picture is None:
        missing = "no defect to mark" if row.kind == GOOD else "no mask given"
        return f'<figure><div class="absent">{missing}</div><figcaption>{caption}</figcaption></figure>'
    described = text(f"{caption}: {row.kind}, {row.name}")
    return (
        f'<figure><button type="button" class="zoom"><img src="{picture.data_uri}" width="{picture.width}" '
        f'height="{picture.height}" alt="{described}" loading="lazy" decoding="async"></button>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _averaged(image: Tensor, size: tuple[int, int]) -> Tensor:
    image = image.detach().cpu().float()
    if tuple(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]


def _highest(values: Tensor, size: tuple[int, int]) -> Tensor:
    values = values.detach().cpu().float()
    return F.adaptive_max_pool2d(values[None, None], size)[0, 0]


def _encoded(picture: Picture) -> EncodedPicture:
    return _as_file(picture, "WEBP", quality=_QUALITY, method=4)


def _encoded_mask(picture: Picture) -> EncodedPicture:
    return _as_file(picture[..., 0] > 0, "PNG", optimize=True)


def _encoded_lines(picture: Picture) -> EncodedPicture:
    return _as_file(picture, "JPEG", quality=_LINE_QUALITY, subsampling=0)


def _as_file(pixels: npt.NDArray[np.uint8 | np.bool_], file_format: str, **options: int | bool) -> EncodedPicture:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    height, width = pixels.shape[:2]
    return EncodedPicture(buffer.getvalue(), f"image/{file_format.lower()}", width, height)
