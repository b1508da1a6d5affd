"""Scaling images to a shorter side."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from image_files import noise
from PIL import Image

from twostage.data import resize_shorter_side


@example(height=3, width=2, size=1, seed=0, gray=False)  # A result one pixel wide.
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 60),
    seed=st.integers(0, 9),
    gray=st.booleans(),
)
def test_resizing_agrees_with_pillow(height: int, width: int, size: int, seed: int, gray: bool) -> None:
    pixels = noise(seed, height, width, 1 if gray else 3)
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    out = resize_shorter_side(image, size)
    assert out.dtype == torch.uint8
    assert min(out.shape[1:]) == size
    scale = size / min(height, width)
    assert abs(out.shape[1] - height * scale) <= 0.5
    assert abs(out.shape[2] - width * scale) <= 0.5
    for channel in range(image.shape[0]):
        plane = Image.fromarray(pixels[..., channel].astype(np.float32))
        expected = plane.resize((out.shape[2], out.shape[1]), Image.Resampling.BILINEAR)
        assert np.abs(out[channel].numpy() - np.asarray(expected)).max() <= 0.51
    exact = resize_shorter_side(image.double() / 255, size)
    assert exact.dtype == torch.float64
    assert float((exact * 255 - out).abs().max()) <= 0.51


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_floating_point_image_is_resized(dtype: torch.dtype) -> None:
    image = torch.from_numpy(noise(3, 40, 50)).unsqueeze(0).to(dtype) / 255
    out = resize_shorter_side(image, 30)
    assert out.dtype == dtype
    exact = resize_shorter_side(image.double(), 30)
    assert float((out - exact).abs().max()) <= max(torch.finfo(dtype).eps, 1e-5)


def test_unchanged_images_are_returned_as_they_are() -> None:
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    assert resize_shorter_side(image, None) is image
    assert resize_shorter_side(image, 20) is image


@pytest.mark.parametrize(
    ("image", "size", "message"),
    [
        (torch.zeros(5, 5), 8, r"shape \(5, 5\); accepted: \[C, H, W\]"),
        (torch.zeros(1, 0, 5), 8, "accepted: .* at least one pixel"),
        (torch.zeros(1, 5, 5, dtype=torch.int32), 8, "dtype torch.int32; accepted: uint8 or floating point"),
        (torch.zeros(1, 5, 5), 0, "size is 0; accepted: None, or at least 1"),
    ],
)
def test_resizing_refuses(image: torch.Tensor, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resize_shorter_side(image, size)
