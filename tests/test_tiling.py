"""Whole images from overlapping patches: nothing lost, nothing invented, no seams."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from twostage.tiling import blending_window, patch_starts, reconstruct

PATCH = 16


class Identity(nn.Module):
    def forward(self, patches: Tensor) -> Tensor:
        return patches


class Framed(nn.Module):
    """Spoils the outermost pixels of every patch, as a model does whose loss hardly sees them."""

    def forward(self, patches: Tensor) -> Tensor:
        spoiled = patches.clone()
        spoiled[:, :, 0] = spoiled[:, :, -1] = 1
        spoiled[:, :, :, 0] = spoiled[:, :, :, -1] = 1
        return spoiled


@settings(max_examples=40)
@given(
    st.integers(PATCH, 3 * PATCH),
    st.integers(PATCH, 3 * PATCH),
    st.floats(0, 0.8),
    st.sampled_from([1, 3]),
    st.integers(1, 40),
)
def test_an_identity_gives_the_image_back(height: int, width: int, overlap: float, channels: int, batch: int) -> None:
    image = torch.rand(channels, height, width, generator=torch.Generator().manual_seed(height * width))
    found = reconstruct(Identity(), image, patch_size=PATCH, overlap=overlap, batch_size=batch)
    torch.testing.assert_close(found, image, rtol=0, atol=5e-6)  # the rounding of up to 36 summands
    assert found.min() >= 0
    assert found.max() <= 1


def test_patches_are_seen_in_place_and_in_batches_of_the_given_size() -> None:
    seen: list[Tensor] = []
    model = Identity()
    model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    image = torch.rand(1, 40, 50)
    reconstruct(model, image, patch_size=PATCH, overlap=0.5, batch_size=4)
    assert {len(batch) for batch in seen[:-1]} == {4}
    assert 1 <= len(seen[-1]) <= 4
    inner = torch.cat([patch.flatten() for patch in seen])
    assert set(inner.tolist()) == set(image.flatten().tolist())  # reflection brings in no new value


@pytest.mark.parametrize(("count", "batch"), [(2, 7), (3, 100), (5, 2)])
def test_images_together_are_those_one_by_one(count: int, batch: int) -> None:
    class Bent(nn.Module):
        def forward(self, patches: Tensor) -> Tensor:
            return patches.square() * patches.mean(dim=(1, 2, 3), keepdim=True)

    images = torch.rand(count, 1, 40, 53, generator=torch.Generator().manual_seed(0))
    together = reconstruct(Bent(), images, patch_size=PATCH, overlap=0.5, batch_size=batch)
    for image, found in zip(images, together, strict=True):
        alone = reconstruct(Bent(), image, patch_size=PATCH, overlap=0.5, batch_size=4)
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.75])
def test_what_a_model_spoils_at_the_borders_of_patches_hardly_shows(overlap: float) -> None:
    """Also not at the borders of the image."""
    image = torch.zeros(1, 75, 61)
    found = reconstruct(Framed(), image, patch_size=PATCH, overlap=overlap, batch_size=8)
    assert found.max() < 0.05


def test_patches_without_overlap_would_show_them() -> None:
    found = reconstruct(Framed(), torch.zeros(1, 60, 60), patch_size=PATCH, overlap=0.0, batch_size=8)
    assert found.max() > 0.99


def test_patches_of_different_brightness_are_blended_without_a_jump() -> None:
    class Numbered(nn.Module):
        def forward(self, patches: Tensor) -> Tensor:
            return torch.rand(len(patches), 1, 1, 1, generator=torch.Generator().manual_seed(0)).expand_as(patches)

    found = reconstruct(Numbered(), torch.zeros(1, 96, 96), patch_size=32, overlap=0.5, batch_size=1000)
    assert found.max() - found.min() > 0.3
    assert found.diff(dim=1).abs().max() < 0.12
    assert found.diff(dim=2).abs().max() < 0.12


def test_weights_fade_from_the_middle_to_nothing() -> None:
    window = blending_window(32)
    assert torch.equal(window, window.t())
    torch.testing.assert_close(window, window.flip(0))
    assert window.argmax() in (15 * 32 + 15, 15 * 32 + 16, 16 * 32 + 15, 16 * 32 + 16)
    assert 0 < window[0].max() < 0.003
    # Neighbours at half a patch add up to the same weight everywhere.
    row = window[16] / window[16].max()
    torch.testing.assert_close(row[:16] + row[16:], torch.full((16,), float(row[0] + row[16])))


@given(st.integers(16, 300), st.integers(8, 16), st.floats(0, 0.94))
def test_patches_cover_every_pixel_and_overlap_at_least_as_asked(length: int, size: int, overlap: float) -> None:
    starts = patch_starts(length, size, overlap)
    assert starts[0] == 0
    assert starts[-1] == length - size
    strides = [after - before for before, after in itertools.pairwise(starts)]
    widest = max(int(size * (1 - overlap)), 1)
    assert all(0 < stride <= widest for stride in strides)
    assert len(starts) == 1 + -(-(length - size) // widest)  # and no more patches than that takes
