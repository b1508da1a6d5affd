"""The convolutional autoencoder with skip connections (Shiferaw & Yao 2024, Sec. 3.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from twostage.batch_norm import BatchNorm
from twostage.config import ModelConfig

# Encoder layers of AE-SSIM (Bergmann et al. 2018, Table 1): output channels, kernel, stride. The latent layer follows.
ENCODER_LAYERS = ((32, 4, 2), (32, 4, 2), (32, 3, 1), (64, 4, 2), (64, 3, 1), (128, 4, 2), (64, 3, 1), (32, 3, 1))
# Encoder layers whose output joins the decoder, by index into ENCODER_LAYERS; docs/method.md compares the choices.
SKIPPED_LAYERS = {"none": (), "two": (4, 6), "all": tuple(range(len(ENCODER_LAYERS)))}
LEAKY_SLOPE = 0.2


def _block(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, BatchNorm(channels), nn.LeakyReLU(LEAKY_SLOPE))


class Autoencoder(nn.Module):
    """Encoder, 1x1 latent vector and mirrored decoder for square patches.

    With the defaults (128-pixel gray patches, 100 latent channels, two skips) it has 1,160,037 parameters. The latent
    layer's kernel is a sixteenth of the patch, so every latent value sees the whole patch; the features under it have
    a receptive field of 134 pixels.

    Args:
        channels: of the images, 1 or 3.
        config: patch size, latent channels, skips.

    Source: Shiferaw & Yao 2024, Sec. 3.1; layer widths of Bergmann et al. 2018.
    """

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.channels = channels
        self.patch_size = config.patch_size
        self.skipped: Sequence[int] = SKIPPED_LAYERS[config.skips]
        self.encoder = nn.ModuleList()
        width = channels
        for out, kernel, stride in ENCODER_LAYERS:
            convolution = nn.Conv2d(width, out, kernel, stride, padding=1, bias=False)
            self.encoder.append(_block(convolution, out))
            width = out
        side = config.patch_size // 16
        self.to_latent = nn.Conv2d(width, config.latent_channels, side)
        self.from_latent = _block(nn.ConvTranspose2d(config.latent_channels, width, side, bias=False), width)
        self.decoder = nn.ModuleList()
        inputs = (channels, *(layer[0] for layer in ENCODER_LAYERS[:-1]))
        for index in reversed(range(len(ENCODER_LAYERS))):
            _, kernel, stride = ENCODER_LAYERS[index]
            joined = width * (2 if index in self.skipped else 1)
            transposed = nn.ConvTranspose2d(joined, inputs[index], kernel, stride, padding=1, bias=index == 0)
            self.decoder.append(_block(transposed, inputs[index]) if index > 0 else transposed)
            width = inputs[index]
        self.lay_out(channels_last=True)

    def lay_out(self, *, channels_last: bool) -> None:
        """How weights and features lie in memory. Channels last is the faster one for these convolutions on a CPU."""
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct patches [B, C, P, P] in [0, 1]; the result lies in [0, 1]."""
        outputs = []
        features = image.contiguous(memory_format=self.memory_format)
        for block in self.encoder:
            features = block(features)
            outputs.append(features)
        features = self.from_latent(self.to_latent(features))
        for index, block in zip(reversed(range(len(outputs))), self.decoder, strict=True):
            if index in self.skipped:
                features = torch.cat((features, outputs[index]), dim=1)
            features = block(features)
        # In bfloat16 the result would have steps of half a grey level of 8 bits.
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        return torch.sigmoid(features).contiguous()
