"""Configuration: frozen dataclasses, checked when built.

The command line, the TOML file and the Python API all speak these. Every default is the one the committed
results were made with; ``docs/method.md`` says how each was found.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from twostage.errors import ConfigError

Skips = Literal["none", "two", "all"]
Color = Literal["auto", "gray", "rgb"]
LossName = Literal["ssim+l1", "lpips+ssim", "aw-ssim", "aw-ssim+lpips", "ssim"]
BlendName = Literal["normal", "multiply", "screen", "darken", "lighten", "grain_merge", "any"]
HomeName = Literal["auto", "memory", "cache", "shards"]
MapName = Literal["residual", "ssim", "lpips", "features", "combined"]
Precision = Literal["auto", "float32", "bf16"]


def _require(condition: bool, name: str, value: object, accepted: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}; accepted: {accepted}")


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they are read."""

    root: Path | None = None
    """Folder in MVTec layout: train/good, test/<kind>, ground_truth/<kind>/<stem>_mask.*"""
    manifest: Path | None = None
    """CSV instead of a folder: columns path, split (train or test), kind, mask (empty where there is none)."""
    image_size: int | None = 256
    """Shorter side in pixels after resizing, aspect ratio kept. None keeps every image as it is."""
    color: Color = "auto"
    """gray, rgb, or auto: gray where every training image is gray."""
    validation_fraction: float = 0.1
    """Share of the normal training images held out for the threshold and the choice of score map."""
    validation_limit: int = 500
    """Normal training images held out at most."""
    max_pixels: int = 200_000_000
    """Images with more pixels than this are refused before they are decoded."""
    home: HomeName = "auto"
    """Where training images are kept: memory (of the device), cache (on the disk, see data.cache) or shards. auto takes
    shards where data.shards is given, memory where the images fit it, and else the cache."""
    cache: Path | None = None
    """Folder for decoded images. None is twostage in the user's cache folder (XDG_CACHE_HOME, or ~/.cache)."""
    shards: Path | None = None
    """Folder that `twostage shard` wrote: the training images come from there, data.root or data.manifest, where one is
    given, has the test images."""

    def __post_init__(self) -> None:
        if self.root is not None and self.manifest is not None:
            raise ConfigError(
                f"data.root {str(self.root)!r} and data.manifest {str(self.manifest)!r}: give one of them"
            )
        _require(
            self.image_size is None or self.image_size >= 16, "data.image_size", self.image_size, "None, or at least 16"
        )
        _require(self.color in ("auto", "gray", "rgb"), "data.color", self.color, "auto, gray or rgb")
        _require(
            0 < self.validation_fraction < 1, "data.validation_fraction", self.validation_fraction, "between 0 and 1"
        )
        _require(self.validation_limit >= 1, "data.validation_limit", self.validation_limit, "at least 1")
        _require(self.max_pixels > 0, "data.max_pixels", self.max_pixels, "above 0")
        _require(self.home in get_args(HomeName), "data.home", self.home, ", ".join(get_args(HomeName)))
        if self.home == "shards" and self.shards is None:
            raise ConfigError("data.home is 'shards' and data.shards is None; accepted: the folder of the shards")
        if self.shards is not None and self.home not in ("auto", "shards"):
            raise ConfigError(f"data.shards is given and data.home is {self.home!r}; accepted: auto or shards")


@dataclass(frozen=True)
class ModelConfig:
    """The autoencoder."""

    patch_size: int = 128
    """Side of the square patches in pixels: a multiple of 16 from 64 to 512."""
    latent_channels: int = 100
    """Channels of the 1x1 latent vector."""
    skips: Skips = "two"
    """Which encoder layers are joined to the decoder."""

    def __post_init__(self) -> None:
        size = self.patch_size
        _require(64 <= size <= 512 and size % 16 == 0, "model.patch_size", size, "a multiple of 16 from 64 to 512")
        _require(self.latent_channels >= 1, "model.latent_channels", self.latent_channels, "at least 1")
        _require(self.skips in ("none", "two", "all"), "model.skips", self.skips, "none, two or all")


def _require_range(name: str, value: tuple[float, float], low: float, high: float = math.inf) -> None:
    ordered = len(value) == 2 and all(map(math.isfinite, value)) and low <= value[0] <= value[1] <= high
    _require(ordered, name, value, f"(smallest, largest), both finite and from {low} to {high}")


@dataclass(frozen=True)
class DefectConfig:
    """How the artificial defect generation algorithm (ADGA, Sec. 3.2) draws its defects. Ranges are uniform draws."""

    probability: float = 0.9
    """Share of stage-2 patches that get defects; the rest stay normal."""
    max_defects: int = 4
    """Defects in a defective patch: 1 to this many, at most 8."""
    size: tuple[float, float] = (0.08, 0.6)
    """Longest diameter of the ellipse that holds the polygon, as a share of the patch side, drawn on a logarithmic
    scale. No ellipse is narrower than 2 pixels."""
    elongation: tuple[float, float] = (1.0, 8.0)
    """Length over width, drawn on a logarithmic scale."""
    resize: tuple[float, float] = (0.5, 2.0)
    """Magnification of the cut-out, drawn on a logarithmic scale."""
    blur_sigma: tuple[float, float] = (0.7, 2.5)
    """Standard deviation of the Gaussian blur in pixels, at least."""
    blur_share: tuple[float, float] = (0.15, 0.4)
    """The blur is no less than this share of half the width of the polygon's ellipse: a wide cut-out with sharp edges
    is seen to be pasted. (0, 0) blurs all polygons alike."""
    strength: tuple[float, float] = (0.7, 1.0)
    """Opacity of the cut-out."""
    brightness: float = 0.5
    """Largest change of the cut-out's brightness, as a share of its way to white or black. 0 keeps the source's own."""
    contrast: tuple[float, float] = (0.5, 1.5)
    """Factor on the cut-out's contrast about its mean. (1, 1) keeps the source's own."""
    blend: BlendName = "normal"
    """How the cut-out is mixed with what it covers: normal lies on top, as in the paper; any draws for every defect
    normal, multiply or darken where its brightness goes down, and normal, screen or lighten where it goes up."""
    edge_amplitude: tuple[float, float] = (0.0, 0.0)
    """Pixels by which noise moves the edges of the polygon. (0, 0) keeps them straight, as in the paper."""
    edge_grain: tuple[float, float] = (4.0, 16.0)
    """Size in pixels of the bays and spurs that the noise makes, drawn on a logarithmic scale."""
    sources: Path | None = None
    """Folder of images to cut from. None cuts from other normal images."""
    candidates: int = 16
    """Each target draws its sources from this many that are nearest to it in colour and appearance."""

    def __post_init__(self) -> None:
        _require(0 <= self.probability <= 1, "defects.probability", self.probability, "0 to 1")
        _require(1 <= self.max_defects <= 8, "defects.max_defects", self.max_defects, "1 to 8")
        _require_range("defects.size", self.size, 0.01, 1)
        _require_range("defects.elongation", self.elongation, 1)
        _require_range("defects.resize", self.resize, 0.1, 10)
        _require_range("defects.blur_sigma", self.blur_sigma, 0, 16)
        _require_range("defects.blur_share", self.blur_share, 0, 1)
        _require_range("defects.strength", self.strength, 0, 1)
        _require(0 <= self.brightness <= 1, "defects.brightness", self.brightness, "0 to 1")
        _require_range("defects.contrast", self.contrast, 0, 10)
        _require(self.blend in get_args(BlendName), "defects.blend", self.blend, ", ".join(get_args(BlendName)))
        _require_range("defects.edge_amplitude", self.edge_amplitude, 0, 64)
        _require_range("defects.edge_grain", self.edge_grain, 1)
        _require(self.candidates >= 1, "defects.candidates", self.candidates, "at least 1")


@dataclass(frozen=True)
class LossConfig:
    """One loss of Table 2 and its constants."""

    name: LossName = "aw-ssim"
    """What is minimised: 1 - SSIM or AW-SSIM, alone or with L1 or LPIPS."""
    weights: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    """alpha, beta, gamma of AW-SSIM (Eq. 7): luminance, contrast, structure. They are scaled to sum to 1."""
    similarity_share: float = 0.8
    """Weight of the (AW-)SSIM term beside L1 or LPIPS (alpha of Eq. 10); the other term gets the rest."""
    window_size: int = 11
    """Taps of the Gaussian window in each direction: odd."""
    sigma: tuple[float, float] = (0.5, 2.5)
    """Standard deviation of the window at the first and the last step of an epoch, in pixels (Eq. 9)."""
    sigma_step: float | None = None
    """k of Eq. 9: sigma grows by this much a step from its first value. None derives it from the steps in an epoch."""

    def __post_init__(self) -> None:
        names = ("ssim", "ssim+l1", "lpips+ssim", "aw-ssim", "aw-ssim+lpips")
        _require(self.name in names, "loss.name", self.name, ", ".join(names))
        finite = len(self.weights) == 3 and all(math.isfinite(weight) and weight >= 0 for weight in self.weights)
        _require(
            finite and 0 < sum(self.weights) < math.inf,
            "loss.weights",
            self.weights,
            "three numbers of at least 0, not all 0",
        )
        _require(0 <= self.similarity_share <= 1, "loss.similarity_share", self.similarity_share, "0 to 1")
        odd = self.window_size >= 3 and self.window_size % 2 == 1
        _require(odd, "loss.window_size", self.window_size, "an odd integer of at least 3")
        positive = len(self.sigma) == 2 and all(math.isfinite(sigma) and sigma > 0 for sigma in self.sigma)
        _require(positive, "loss.sigma", self.sigma, "(first, last), both finite and above 0")
        step = self.sigma_step
        _require(step is None or (math.isfinite(step) and step >= 0), "loss.sigma_step", step, "None, or at least 0")

    @property
    def uses_lpips(self) -> bool:
        return "lpips" in self.name


@dataclass(frozen=True)
class StageConfig:
    """One stage of training."""

    epochs: int
    """Passes over the training patches; 0 leaves the stage out."""
    loss: LossConfig
    defective: bool
    """Whether inputs get artificial defects (the target is always the normal patch)."""
    learning_rate: float = 2e-4
    """Of Adam."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 0, "stage.epochs", self.epochs, "at least 0")
        rate = self.learning_rate
        _require(math.isfinite(rate) and rate > 0, "stage.learning_rate", rate, "a finite number above 0")


def _first_stage() -> StageConfig:
    return StageConfig(epochs=15, loss=LossConfig("aw-ssim"), defective=False)


def _second_stage() -> StageConfig:
    return StageConfig(epochs=10, loss=LossConfig("aw-ssim+lpips"), defective=True)


@dataclass(frozen=True)
class ScoringConfig:
    """How an image and its reconstruction become an anomaly map, an image score and a decision."""

    map: MapName | Literal["auto"] = "features"
    """Which map scores: residual, ssim, lpips, features (how unusual LPIPS features are), combined;
    auto lets synthetic defects on held-out normal images choose."""
    lpips: bool = True
    """Whether the maps made of LPIPS features take part."""
    smoothing: float | None = 0.0
    """Standard deviation in pixels of the Gaussian that smooths the map. None lets synthetic defects choose."""
    overlap: float = 0.5
    """Share of a patch that neighbouring patches have in common."""
    image_fraction: float = 0.001
    """The image score is the mean of this share of its highest map values (of one pixel at least)."""
    quantile: float = 0.99
    """The threshold is this quantile of the image scores of held-out normal images."""

    def __post_init__(self) -> None:
        names = ("auto", "residual", "ssim", "lpips", "features", "combined")
        _require(self.map in names, "scoring.map", self.map, ", ".join(names))
        if self.map in ("lpips", "features") and not self.lpips:
            raise ConfigError(
                f"scoring.map is {self.map!r} and scoring.lpips is False; accepted without LPIPS: residual, ssim, "
                "combined, auto"
            )
        smoothing = self.smoothing
        _require(smoothing is None or 0 <= smoothing <= 64, "scoring.smoothing", smoothing, "None, or 0 to 64")
        _require(0 <= self.overlap < 0.95, "scoring.overlap", self.overlap, "0 to 0.95")
        _require(0 < self.image_fraction <= 1, "scoring.image_fraction", self.image_fraction, "above 0, up to 1")
        _require(0 < self.quantile <= 1, "scoring.quantile", self.quantile, "above 0, up to 1")


@dataclass(frozen=True)
class ComputeConfig:
    """How training steps are computed; ``docs/scaling.md`` has what each choice gains where it was measured."""

    precision: Precision = "auto"
    """bf16: convolutions of the network and of LPIPS in bfloat16. Sums, losses, weights and Adam stay in
    float32. auto is bf16 on a processor with AVX512-BF16, where it was measured to win, and float32 elsewhere."""
    channels_last: bool = True
    """Whether the channels of a pixel lie side by side in memory."""
    compile: bool = False
    """Whether torch.compile joins the network's small operations. It needs a C++ compiler and half a minute."""
    cuda_graph: bool = False
    """Whether the kernels of a step are launched as one recorded graph: on one NVIDIA GPU."""
    log_every: int | None = None
    """Steps between two readings of the losses, which are then checked and logged, every step of them. None is 1 on a
    CPU, where reading costs nothing, and 20 on a GPU, which the host has to wait for."""

    def __post_init__(self) -> None:
        _require(self.precision in get_args(Precision), "compute.precision", self.precision, "auto, float32 or bf16")
        every = self.log_every
        _require(every is None or every >= 1, "compute.log_every", every, "None, or at least 1")


@dataclass(frozen=True)
class Config:
    """Everything a training run depends on."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    defects: DefectConfig = field(default_factory=DefectConfig)
    first_stage: StageConfig = field(default_factory=_first_stage)
    second_stage: StageConfig = field(default_factory=_second_stage)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    batch_size: int = 16
    """Patches in a step."""
    seed: int = 0
    """Of the initial weights, the order, the patches and the defects."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    device: str = "auto"
    """What trains: cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    lpips_weights: Path | None = None
    """File or folder with the LPIPS weights. None looks at TWOSTAGE_LPIPS_WEIGHTS, then downloads the trunk."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        epochs = self.first_stage.epochs + self.second_stage.epochs
        _require(epochs >= 1, "first_stage.epochs + second_stage.epochs", epochs, "at least 1")
        patch = self.model.patch_size
        for name, stage in (("first_stage", self.first_stage), ("second_stage", self.second_stage)):
            window = stage.loss.window_size
            _require(window <= patch, f"{name}.loss.window_size", window, f"at most model.patch_size, {patch}")
        size = self.data.image_size
        if size is not None and size < patch:
            raise ConfigError(f"model.patch_size is {patch}; accepted: at most data.image_size, {size}")

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """The stages that train at all, in order."""
        return tuple(stage for stage in (self.first_stage, self.second_stage) if stage.epochs > 0)

    @property
    def uses_lpips(self) -> bool:
        """Whether training or scoring needs the LPIPS weights."""
        return self.scoring.lpips or any(stage.loss.uses_lpips for stage in self.stages)
