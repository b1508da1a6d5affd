"""The autoencoder: what its docstring says of it, every size it accepts, and that skips carry."""

import re

import pytest
import torch
from torch import Tensor, nn

from twostage.autoencoder import ENCODER_LAYERS, SKIPPED_LAYERS, Autoencoder
from twostage.config import ModelConfig, Skips

SKIPS: tuple[Skips, ...] = ("none", "two", "all")


def stated(pattern: str) -> int:
    found = re.search(pattern, Autoencoder.__doc__ or "")
    assert found is not None
    return int(found[1].replace(",", ""))


def test_parameter_count_is_the_stated_one() -> None:
    model = Autoencoder(1, ModelConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == stated(r"has ([\d,]+) parameters")


def test_receptive_field_under_the_latent_layer_is_the_stated_one() -> None:
    model = Autoencoder(1, ModelConfig(patch_size=256)).eval()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)  # nothing cancels
    image = torch.zeros(1, 1, 256, 256, requires_grad=True)
    features = image
    for block in model.encoder:
        features = block(features)
    torch.autograd.backward(features[0, :, 8, 8].sum())
    assert image.grad is not None
    seen = image.grad[0, 0] != 0
    side = stated(r"receptive field\s+of\s+(\d+)\s+pixels")
    assert seen.any(dim=0).sum() == seen.any(dim=1).sum() == side
    assert seen.sum() == side**2


def test_two_skips_are_two_and_all_are_all() -> None:
    assert [len(SKIPPED_LAYERS[skips]) for skips in SKIPS] == [0, 2, len(ENCODER_LAYERS)]


@pytest.mark.parametrize("size", [64, 80, 112, 512])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_patch_size_passes_a_latent_vector_and_keeps_its_shape(size: int, channels: int) -> None:
    model = Autoencoder(channels, ModelConfig(patch_size=size, latent_channels=5)).eval()
    latents: list[Tensor] = []
    model.to_latent.register_forward_hook(lambda module, inputs, output: latents.append(output))
    image = torch.rand(2, channels, size, size)
    assert model(image).shape == image.shape
    assert latents[0].shape == (2, 5, 1, 1)


@pytest.mark.parametrize("skips", SKIPS)
def test_output_stays_in_range_for_any_weights_and_input(skips: Skips) -> None:
    model = Autoencoder(3, ModelConfig(patch_size=64, skips=skips))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=10.0)
    output = model(torch.randn(2, 3, 64, 64) * 100)
    assert output.min() >= 0
    assert output.max() <= 1
    assert output.max() - output.min() > 0.5


def cut_latent(model: Autoencoder) -> None:
    """Make the path through the latent vector constant."""
    nn.init.zeros_(model.to_latent.weight)


@pytest.mark.parametrize("skips", SKIPS)
def test_around_a_cut_latent_only_skips_carry(skips: Skips) -> None:
    torch.manual_seed(0)
    model = Autoencoder(1, ModelConfig(patch_size=64, skips=skips)).eval()
    cut_latent(model)
    image = torch.rand(1, 1, 64, 64, requires_grad=True)
    model(image)[0, 0, 32, 32].backward()
    assert image.grad is not None
    assert bool(image.grad.any()) == (skips != "none")


@pytest.mark.parametrize("skips", SKIPS)
def test_decoder_is_joined_by_exactly_the_named_encoder_layers(skips: Skips) -> None:
    torch.manual_seed(0)
    model = Autoencoder(1, ModelConfig(patch_size=64, skips=skips)).eval()
    encoded: list[Tensor] = []
    decoded: list[Tensor] = []
    for block in model.encoder:
        block.register_forward_hook(lambda module, inputs, output: encoded.append(output))
    for block in model.decoder:
        block.register_forward_hook(lambda module, inputs, output: decoded.append(inputs[0]))
    model(torch.rand(1, 1, 64, 64))
    for index, (width, _, _) in enumerate(ENCODER_LAYERS):
        entering = decoded[len(ENCODER_LAYERS) - 1 - index]
        if index in SKIPPED_LAYERS[skips]:
            assert torch.equal(entering[:, width:], encoded[index])
        else:
            assert entering.shape[1] == width
