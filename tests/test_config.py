"""Every value that is not accepted is refused where it is given, with its name and what is accepted."""

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from config_strategies import configs
from hypothesis import given, settings

from twostage.config import (
    ComputeConfig,
    Config,
    DataConfig,
    DefectConfig,
    LossConfig,
    ModelConfig,
    ScoringConfig,
    StageConfig,
)
from twostage.errors import ConfigError, TwostageError

NAN, INFINITY = math.nan, math.inf
RANGES: tuple[tuple[str, Any], ...] = tuple(
    (name, value)
    for name, below, above in (
        ("size", 0.005, 1.1),
        ("elongation", 0.9, INFINITY),
        ("resize", 0.05, 11.0),
        ("blur_sigma", -0.1, 17.0),
        ("blur_share", -0.1, 1.1),
        ("strength", -0.1, 1.1),
        ("contrast", -0.1, 11.0),
        ("edge_amplitude", -0.1, 65.0),
    )
    for value in ((below, 1.0), (1.0, above), (0.9, 0.8), (NAN, 1.0), (1.0, NAN), (1.0,), (0.5, 0.6, 0.7))
)

REFUSED: list[tuple[str, Callable[..., object], str, Any]] = [
    *[("data", DataConfig, "image_size", value) for value in (15, 0, -1)],
    ("data", DataConfig, "color", "grey"),
    *[("data", DataConfig, "validation_fraction", value) for value in (0, 1, -0.1, 1.5, NAN)],
    ("data", DataConfig, "validation_limit", 0),
    ("data", DataConfig, "max_pixels", 0),
    *[("data", DataConfig, "home", value) for value in ("disk", "")],
    *[("model", ModelConfig, "patch_size", value) for value in (48, 63, 100, 528, 0, -64)],
    ("model", ModelConfig, "latent_channels", 0),
    ("model", ModelConfig, "skips", "three"),
    *[("defects", DefectConfig, "probability", value) for value in (-0.1, 1.1, NAN)],
    *[("defects", DefectConfig, "max_defects", value) for value in (0, 9)],
    *[("defects", DefectConfig, name, value) for name, value in RANGES],
    *[("defects", DefectConfig, "brightness", value) for value in (-0.1, 1.1, NAN)],
    ("defects", DefectConfig, "candidates", 0),
    ("defects", DefectConfig, "blend", "average"),
    *[("defects", DefectConfig, "edge_grain", value) for value in ((0.9, 2.0), (3.0, 2.0), (1.0, INFINITY))],
    ("loss", LossConfig, "name", "l2"),
    *[
        ("loss", LossConfig, "weights", value)
        for value in ((0, 0, 0), (1, -0.1, 1), (1, NAN, 1), (INFINITY, 1, 1), (1, 1), (1, 1, 1, 1), (1e308,) * 3)
    ],
    *[("loss", LossConfig, "similarity_share", value) for value in (-0.1, 1.1, NAN)],
    *[("loss", LossConfig, "window_size", value) for value in (1, 10, 0, -3)],
    *[
        ("loss", LossConfig, "sigma", value)
        for value in ((0, 1), (1, 0), (-1, 1), (NAN, 1), (1, INFINITY), (1,), (1, 2, 3))
    ],
    *[("loss", LossConfig, "sigma_step", value) for value in (-0.1, NAN, INFINITY)],
    ("stage", lambda epochs: StageConfig(epochs, LossConfig(), defective=False), "epochs", -1),
    *[
        ("stage", lambda learning_rate: StageConfig(1, LossConfig(), False, learning_rate), "learning_rate", value)
        for value in (0, -1e-4, NAN, INFINITY)
    ],
    ("scoring", ScoringConfig, "map", "mse"),
    *[("scoring", ScoringConfig, "smoothing", value) for value in (-0.1, 65, NAN)],
    *[("scoring", ScoringConfig, "overlap", value) for value in (-0.1, 0.95, NAN)],
    *[("scoring", ScoringConfig, "image_fraction", value) for value in (0, 1.1, NAN)],
    *[("scoring", ScoringConfig, "quantile", value) for value in (0, 1.1, NAN)],
    *[("compute", ComputeConfig, "precision", value) for value in ("float16", "bfloat16")],
    *[("compute", ComputeConfig, "log_every", value) for value in (0, -1)],
    ("", Config, "batch_size", 0),
    *[("", Config, "seed", value) for value in (-1, 2**63)],
    ("", Config, "checkpoint_every", 0),
]


@pytest.mark.parametrize(("section", "make", "name", "value"), REFUSED)
def test_a_value_that_is_not_accepted_is_named(
    section: str, make: Callable[..., object], name: str, value: object
) -> None:
    full_name = f"{section}.{name}" if section else name
    with pytest.raises(ConfigError, match=re.escape(f"{full_name} is {value!r}; accepted: ")):
        make(**{name: value})


def test_every_setting_with_limits_is_tried_above() -> None:
    tried = {(section, name) for section, _, name, _ in REFUSED}
    unlimited = {
        ("data", "root"),
        ("data", "manifest"),
        ("data", "cache"),
        ("data", "shards"),
        ("defects", "sources"),
        ("stage", "loss"),
        ("stage", "defective"),
        ("scoring", "lpips"),
        ("compute", "channels_last"),
        ("compute", "compile"),
        ("compute", "cuda_graph"),  # the trainer knows its device
        ("", "device"),  # what is here is looked up when it is needed
        ("", "lpips_weights"),
    }
    sections = {
        "data": DataConfig,
        "model": ModelConfig,
        "defects": DefectConfig,
        "loss": LossConfig,
        "stage": StageConfig,
        "scoring": ScoringConfig,
        "compute": ComputeConfig,
    }
    settings = {(section, field.name) for section, cls in sections.items() for field in dataclasses.fields(cls)}
    settings |= {("", field.name) for field in dataclasses.fields(Config) if field.name not in sections}
    settings -= {("", "first_stage"), ("", "second_stage")}
    assert settings == tried | unlimited


def stage(epochs: int = 1, window: int = 11) -> StageConfig:
    return StageConfig(epochs, LossConfig(window_size=window), defective=False)


def test_one_place_for_the_images_alone() -> None:
    with pytest.raises(ConfigError, match=r"data\.root 'a' and data\.manifest 'b': give one of them"):
        DataConfig(root=Path("a"), manifest=Path("b"))


@pytest.mark.parametrize("name", ["lpips", "features"])
def test_a_map_of_lpips_features_needs_lpips(name: Any) -> None:
    with pytest.raises(ConfigError, match=rf"scoring\.map is '{name}' and scoring\.lpips is False; accepted without"):
        ScoringConfig(map=name, lpips=False)


def test_a_run_has_an_epoch() -> None:
    with pytest.raises(ConfigError, match=r"first_stage\.epochs \+ second_stage\.epochs is 0; accepted: at least 1"):
        Config(first_stage=stage(epochs=0), second_stage=stage(epochs=0))


@pytest.mark.parametrize("name", ["first_stage", "second_stage"])
def test_a_window_fits_into_a_patch(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}\.loss\.window_size is 65; accepted: at most .*, 64"):
        Config(model=ModelConfig(patch_size=64), **{name: stage(window=65)})  # type: ignore[arg-type]
    Config(model=ModelConfig(patch_size=64), **{name: stage(window=63)})  # type: ignore[arg-type]


def test_a_patch_fits_into_an_image() -> None:
    with pytest.raises(ConfigError, match=r"model\.patch_size is 128; accepted: at most data\.image_size, 127"):
        Config(model=ModelConfig(patch_size=128), data=DataConfig(image_size=127))
    Config(model=ModelConfig(patch_size=128), data=DataConfig(image_size=None))


def test_stages_are_those_that_train() -> None:
    first, second = stage(epochs=0), stage(epochs=2)
    assert Config(first_stage=first, second_stage=second).stages == (second,)
    assert Config(first_stage=second, second_stage=first).stages == (second,)
    assert Config(first_stage=second, second_stage=second).stages == (second, second)


def test_lpips_is_needed_by_scoring_or_by_a_stage_that_trains() -> None:
    plain, perceptual = stage(), StageConfig(1, LossConfig("aw-ssim+lpips"), defective=True)
    without = ScoringConfig(map="residual", lpips=False)
    assert Config(first_stage=plain, second_stage=plain).uses_lpips
    assert not Config(first_stage=plain, second_stage=plain, scoring=without).uses_lpips
    assert Config(first_stage=plain, second_stage=perceptual, scoring=without).uses_lpips
    idle = dataclasses.replace(perceptual, epochs=0)
    assert not Config(first_stage=plain, second_stage=idle, scoring=without).uses_lpips


@settings(max_examples=30)
@given(configs)
def test_what_lies_within_the_limits_is_accepted_and_cannot_change(config: Config) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]


def test_errors_can_be_caught_as_what_they_are() -> None:
    assert issubclass(ConfigError, TwostageError)
    assert issubclass(ConfigError, ValueError)
