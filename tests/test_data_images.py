"""Reading images and masks, and refusing what is none."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import MAX_PIXELS, noise, png_16, png_bytes, write
from PIL import Image, ImageOps

from twostage.data import ImageInfo, choose_color, probe_image, read_image, read_mask
from twostage.errors import DataError

tifffile = pytest.importorskip("tifffile", reason="tifffile writes the TIFF files that Pillow cannot")

Result = TypeVar("Result")

on_files = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def gray(path: Path) -> npt.NDArray[Any]:
    return read_image(path, color="gray", max_pixels=MAX_PIXELS)[0].numpy()


def rgb(path: Path) -> npt.NDArray[Any]:
    return read_image(path, color="rgb", max_pixels=MAX_PIXELS).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "no_ending"])
@pytest.mark.parametrize("channels", [0, 3])
def test_lossless_8_bit_pixels_come_back(tmp_path: Path, name: str, channels: int) -> None:
    pixels = noise(0, channels=channels)
    Image.fromarray(pixels).save(tmp_path / name, format={"a.bmp": "BMP", "a.tif": "TIFF"}.get(name, "PNG"))
    back = rgb(tmp_path / name) if channels else gray(tmp_path / name)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_nearly(tmp_path: Path, form: str) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(90)), axis=2)
    Image.fromarray(pixels).save(tmp_path / "a", format=form, quality=95)
    assert np.abs(rgb(tmp_path / "a").astype(int) - pixels).max() <= 12
    assert probe_image(tmp_path / "a", max_pixels=MAX_PIXELS) == ImageInfo(form, 64, 64, "rgb", 8)


def test_gray_becomes_rgb_by_repetition_and_rgb_gray_by_luma(tmp_path: Path) -> None:
    pixels = noise(1)
    np.testing.assert_array_equal(rgb(write(tmp_path / "g.png", pixels)), np.stack([pixels] * 3, axis=2))
    colors = noise(2, channels=3)
    luma = colors @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray(write(tmp_path / "c.png", colors)) - luma).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_every_bit(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(3).integers(0, 65536, (9, 7, channels), dtype=np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535
    path = png_16(tmp_path / "a.png", values)
    back = gray(path)[..., None] if channels < 3 else rgb(path)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(np.rint(back * 65535).astype(np.uint16), values[..., : 1 if channels < 3 else 3])
    info = probe_image(path, max_pixels=MAX_PIXELS)
    assert (info.channels, info.bits) == ("gray" if channels < 3 else "rgb", 16)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"compression": "deflate"}])
def test_16_bit_tiff_keeps_every_bit(tmp_path: Path, byte_order: str, layout: dict[str, Any], alpha: bool) -> None:
    values = np.random.default_rng(4).integers(0, 65536, (21, 19, 4 if alpha else 3), dtype=np.uint16)
    values[..., 3:] = 65535
    extra = ["unassalpha"] if alpha else None
    kinds = {"photometric": "rgb", "byteorder": byte_order, "extrasamples": extra}
    tifffile.imwrite(tmp_path / "c.tif", values.astype(f"{byte_order}u2"), **kinds, **layout)
    np.testing.assert_array_equal(np.rint(rgb(tmp_path / "c.tif") * 65535), values[..., :3])
    kinds = {"photometric": "minisblack", "byteorder": byte_order}
    tifffile.imwrite(tmp_path / "g.tif", values[..., 0].astype(f"{byte_order}u2"), **kinds, **layout)
    np.testing.assert_array_equal(np.rint(gray(tmp_path / "g.tif") * 65535), values[..., 0])


def test_white_is_zero_tiff_is_turned_over(tmp_path: Path) -> None:
    values = np.array([[0, 65535], [1000, 2000]], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    np.testing.assert_allclose(gray(tmp_path / "a.tif"), 1 - values / 65535, atol=1e-6)


def test_float_tiff_within_0_and_1(tmp_path: Path) -> None:
    values = np.random.default_rng(5).random((8, 9), dtype=np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(gray(tmp_path / "a.tif"), values)
    assert probe_image(tmp_path / "a.tif", max_pixels=MAX_PIXELS).bits == 32


def test_alpha_is_composited_on_black(tmp_path: Path) -> None:
    pixels = noise(6, channels=4)
    expected = np.rint(pixels[..., :3] * (pixels[..., 3:] / 255.0))
    assert np.abs(rgb(write(tmp_path / "a.png", pixels)) - expected).max() <= 1
    two = noise(7, channels=2)
    Image.fromarray(two, "LA").save(tmp_path / "la.png")
    assert np.abs(gray(tmp_path / "la.png") - np.rint(two[..., 0] * (two[..., 1] / 255.0))).max() <= 1
    assert probe_image(tmp_path / "la.png", max_pixels=MAX_PIXELS).channels == "gray"


@pytest.mark.parametrize("channels", [2, 4])
def test_16_bit_alpha_is_composited_on_black(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(14).integers(0, 65536, (9, 7, channels), dtype=np.uint16)
    expected = (values[..., :-1] / 65535.0) * (values[..., -1:] / 65535.0)
    path = png_16(tmp_path / "a.png", values)
    np.testing.assert_allclose(gray(path)[..., None] if channels == 2 else rgb(path), expected, atol=1e-6)


def test_palettes_are_looked_up(tmp_path: Path) -> None:
    indices = noise(8) % 3
    image = Image.fromarray(indices, "P")
    colors = np.array([[10, 20, 30], [200, 0, 50], [0, 255, 7]], dtype=np.uint8)
    image.putpalette(colors.tobytes())
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(rgb(tmp_path / "p.png"), colors[indices])
    grays = np.array([[10] * 3, [200] * 3, [0] * 3], dtype=np.uint8)
    image.putpalette(grays.tobytes())
    image.save(tmp_path / "g.png")
    assert probe_image(tmp_path / "g.png", max_pixels=MAX_PIXELS).channels == "gray"
    np.testing.assert_array_equal(gray(tmp_path / "g.png"), grays[indices][..., 0])


def test_bilevel_becomes_0_and_255(tmp_path: Path) -> None:
    bits = noise(9) > 127
    write(tmp_path / "a.png", bits)
    np.testing.assert_array_equal(gray(tmp_path / "a.png"), bits * 255)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied_as_pillow_does(tmp_path: Path, turn: int, form: str) -> None:
    image = Image.fromarray(np.kron(noise(10, 3, 4), np.ones((8, 8), dtype=np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(tmp_path / "a", format=form, exif=exif)
    # From memory: from a file, Pillow maps an uncompressed TIFF with its sides swapped.
    with Image.open(io.BytesIO((tmp_path / "a").read_bytes())) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(gray(tmp_path / "a"), expected)
    info = probe_image(tmp_path / "a", max_pixels=MAX_PIXELS)
    assert (info.height, info.width) == expected.shape


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        (form, mode)
        for form in ("PNG", "BMP", "TIFF")
        for mode in ("L", "P", "RGB", "I;16")
        if (form, mode) != ("BMP", "I;16")
    ],
)
def test_larger_than_pillows_own_limit_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, mode: str
) -> None:
    values = noise(11, 40, 50).astype(np.uint16) * 257 if mode == "I;16" else noise(11, 40, 50)
    image = Image.fromarray(values) if mode == "I;16" else Image.fromarray(values).convert(mode)
    image.save(tmp_path / "a", format=form)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    read = gray(tmp_path / "a")
    np.testing.assert_array_equal(np.rint(read * 65535) if mode == "I;16" else read, values)
    assert Image.MAX_IMAGE_PIXELS == 10


def bomb(path: Path) -> None:
    path.write_bytes(png_bytes(100_000, 100_000, 8, 0))


def animation(form: str) -> Callable[[Path], None]:
    def write_frames(path: Path) -> None:
        first, second = Image.fromarray(noise(0, channels=3)), Image.fromarray(noise(1, channels=3))
        first.save(path, format=form, save_all=True, append_images=[second])

    return write_frames


def saved(form: str, mode: str = "L") -> Callable[[Path], None]:
    return lambda path: Image.fromarray(noise(0)).convert(mode).save(path, format=form)


def tiff(values: npt.NDArray[Any], **kinds: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, values, **kinds)


def raw(content: bytes) -> Callable[[Path], None]:
    def write_bytes(path: Path) -> None:
        path.write_bytes(content)

    return write_bytes


REFUSED = {
    "bomb": (bomb, "100000x100000 = 10000000000 pixels by its header; accepted: at most data.max_pixels = 1000000"),
    "gif": (saved("GIF", "P"), "not an accepted image .*GIF8.*; accepted: PNG, JPEG, BMP, TIFF or WebP"),
    "text": (raw(b"hello, I am no image"), "not an accepted image"),
    "empty": (raw(b""), "the file is empty"),
    "animated png": (animation("PNG"), "holds 2 frames or pages; accepted: still images of one"),
    "animated webp": (animation("WEBP"), "holds 2 frames or pages"),
    "pages": (animation("TIFF"), "holds 2 frames or pages"),
    "header alone": (raw(png_bytes(10, 10, 8, 0)[:40]), "cannot be read .*accepted: an intact"),
    "no pixels": (raw(png_bytes(10, 10, 8, 0)), "cannot be read .*accepted: an intact"),
    "nan": (tiff(np.array([[0.5, np.nan], [np.inf, 0]], np.float32)), "2 pixels are NaN or infinite; accepted: finite"),
    "range": (
        tiff(np.array([[0.5, 200.0]], np.float32)),
        "floating-point pixels from 0.5 to 200; accepted: within 0..1",
    ),
    "int32": (tiff(np.ones((4, 4), np.int32)), "samples are stored as 'I;32S'; accepted: 8-bit"),
    "planes": (
        tiff(np.ones((3, 8, 8), np.uint16), photometric="rgb", planarconfig="separate"),
        "in separate planes; accepted: 8-bit",
    ),
    "float rgb": (tiff(np.ones((8, 8, 3), np.float32), photometric="rgb"), "cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("read", [gray, rgb, lambda path: read_mask(path, max_pixels=MAX_PIXELS)])
def test_refused(tmp_path: Path, case: str, read: Callable[[Path], object]) -> None:
    make, message = REFUSED[case]
    path = tmp_path / "image.png"
    make(path)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.png: cannot be read .*FileNotFoundError"):
        gray(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"cannot be read .*IsADirectoryError"):
        probe_image(tmp_path, max_pixels=MAX_PIXELS)


def test_a_bomb_is_refused_from_its_header_alone(tmp_path: Path) -> None:
    bomb(tmp_path / "a.png")
    with pytest.raises(DataError, match="100000x100000"):
        probe_image(tmp_path / "a.png", max_pixels=MAX_PIXELS)
    path = write(tmp_path / "b.png", noise(0, 20, 30))
    assert probe_image(path, max_pixels=600).width == 30
    with pytest.raises(DataError, match=r"at most data.max_pixels = 599"):
        probe_image(path, max_pixels=599)


def unless_refused(read: Callable[[Path], Result], path: Path) -> Result | None:
    """What ``read`` returns, or None where it raises a DataError that names the file; nothing else may come."""
    try:
        return read(path)
    except DataError as error:
        if not str(error).startswith(f"{path}: "):
            raise
        return None


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(12, 40, 48, 3)).save(file, format=form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
@given(data=st.data())
@on_files
def test_truncated_files_are_refused_or_complete(tmp_path: Path, form: str, data: st.DataObject) -> None:
    content = encoded(form)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.write_bytes(content)
    cut.write_bytes(content[: data.draw(st.integers(1, len(content) - 1))])
    pixels = unless_refused(rgb, cut)
    if pixels is not None:
        np.testing.assert_array_equal(pixels, rgb(whole))


def test_a_jpeg_cut_in_its_middle_is_refused(tmp_path: Path) -> None:
    content = encoded("JPEG")
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a.jpg: cannot be read .*truncated"):
        gray(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of odd metadata before it fails on it.
@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
@given(data=st.data())
@on_files
def test_damaged_files_raise_nothing_but_data_errors(tmp_path: Path, form: str, data: st.DataObject) -> None:
    content = bytearray(encoded(form))
    for _ in range(data.draw(st.integers(1, 8))):
        # Headers and directories, where damage leads a decoder furthest astray, lie at both ends.
        place = data.draw(st.integers(0, 300) | st.integers(-300, -1) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(bytes(content))
    unless_refused(gray, path)
    unless_refused(lambda path: probe_image(path, max_pixels=MAX_PIXELS), path)


def test_masks_of_every_kind_say_the_same(tmp_path: Path) -> None:
    marked = noise(13) > 200
    one_bit = np.where(marked, 1, 0).astype(np.uint8)
    write(tmp_path / "255.png", one_bit * 255)
    write(tmp_path / "1.png", one_bit)
    write(tmp_path / "bilevel.png", marked)
    write(tmp_path / "color.png", np.stack([one_bit * 0, one_bit * 90, one_bit * 0], axis=2))
    write(tmp_path / "opaque.png", np.stack([one_bit * 255] * 3 + [np.full_like(one_bit, 255)], axis=2))
    png_16(tmp_path / "16.png", one_bit[..., None].astype(np.uint16))
    labels = Image.fromarray(one_bit, "P")
    labels.putpalette(bytes([0, 0, 0, 128, 0, 0]))
    labels.save(tmp_path / "palette.png")
    swapped = Image.fromarray(1 - one_bit, "P")
    swapped.putpalette(bytes([255, 255, 255, 0, 0, 0]))
    swapped.save(tmp_path / "swapped.png")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_mask(path, max_pixels=MAX_PIXELS).numpy(), marked, err_msg=path.name)


def test_noise_of_a_jpeg_mask_marks_nothing(tmp_path: Path) -> None:
    marked = np.zeros((64, 64), dtype=np.uint8)
    marked[20:41, 17:30] = 255
    Image.fromarray(marked).save(tmp_path / "a.jpg", quality=60)
    assert (gray(tmp_path / "a.jpg")[marked == 0] > 0).any()
    np.testing.assert_array_equal(read_mask(tmp_path / "a.jpg", max_pixels=MAX_PIXELS).numpy(), marked > 0)


def test_color_is_chosen_gray_only_where_all_files_are(tmp_path: Path) -> None:
    grays = [write(tmp_path / f"{index}.png", noise(index)) for index in range(2)]
    color = write(tmp_path / "c.png", noise(2, channels=3))
    assert choose_color(grays, "auto", max_pixels=MAX_PIXELS) == "gray"
    assert choose_color([*grays, color], "auto", max_pixels=MAX_PIXELS) == "rgb"
    assert choose_color([color], "gray", max_pixels=MAX_PIXELS) == "gray"
    with pytest.raises(DataError, match="nowhere"):
        choose_color([tmp_path / "nowhere"], "auto", max_pixels=MAX_PIXELS)


def test_a_text_bomb_in_a_png_is_refused(tmp_path: Path) -> None:
    content = b"Comment\0\0" + zlib.compress(bytes(20_000_000))
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    small = png_bytes(4, 4, 8, 0, bytes(20))
    (tmp_path / "a.png").write_bytes(small[:33] + chunk + small[33:])
    with pytest.raises(DataError, match="Decompressed data too large"):
        gray(tmp_path / "a.png")
