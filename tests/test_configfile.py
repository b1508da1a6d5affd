"""Configurations as dictionaries and TOML files: nothing is lost, and what is wrong is named."""

import dataclasses
import json
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_strategies import configs
from hypothesis import given, settings

from twostage.config import Config, DataConfig, LossConfig, ScoringConfig
from twostage.configfile import config_from_dict, config_to_dict, config_to_toml, load_config
from twostage.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load(folder: Path, text: str) -> Config:
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file)


@given(configs)
def test_toml_gives_every_configuration_back(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    assert load(tmp_path_factory.getbasetemp(), config_to_toml(config)) == config


@given(configs)
def test_json_gives_every_configuration_back(config: Config) -> None:
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


# ---------------------------------------------------------------- what a file may leave out


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config()


def test_what_a_table_leaves_out_keeps_the_default_of_its_place(tmp_path: Path) -> None:
    """Which for a stage is not that of the class: the second stage is defective and has another loss."""
    found = load(tmp_path, "seed = 3\n[second_stage]\nepochs = 4\n[second_stage.loss]\nwindow_size = 7\n")
    default = Config().second_stage
    loss = dataclasses.replace(default.loss, window_size=7)
    assert found == Config(seed=3, second_stage=dataclasses.replace(default, epochs=4, loss=loss))


# ---------------------------------------------------------------- None


def optional_settings(cls: type, prefix: str = "") -> Iterator[tuple[str, bool, object]]:
    """Name, whether it is a path, and default of every setting that may be None."""
    base = Config() if cls is Config else None
    for field in dataclasses.fields(cls):
        wanted = typing.get_type_hints(cls)[field.name]
        if dataclasses.is_dataclass(wanted):
            yield from optional_settings(typing.cast("type", wanted), f"{prefix}{field.name}.")
        elif type(None) in typing.get_args(wanted):
            default = field.default if base is None else getattr(base, field.name)
            yield f"{prefix}{field.name}", Path in typing.get_args(wanted), default


def test_a_path_may_be_none_only_by_default() -> None:
    """Leaving a path out of a file means None, so no path may have another default."""
    found = list(optional_settings(Config))
    assert {name for name, _, _ in found} >= {"data.root", "data.image_size", "scoring.smoothing", "lpips_weights"}
    assert all(default is None for _, is_path, default in found if is_path)


@pytest.mark.parametrize("spelling", ["none", "None"])
def test_a_number_that_is_none_is_spelled_out(tmp_path: Path, spelling: str) -> None:
    found = load(tmp_path, f'[data]\nimage_size = "{spelling}"\n[scoring]\nsmoothing = "{spelling}"\n')
    assert found.data.image_size is None
    assert found.scoring.smoothing is None
    text = config_to_toml(Config(data=DataConfig(image_size=None), scoring=ScoringConfig(smoothing=None)))
    parsed = tomllib.loads(text)
    assert parsed["data"]["image_size"] == parsed["scoring"]["smoothing"] == "none"


def test_a_path_may_be_called_none(tmp_path: Path) -> None:
    assert load(tmp_path, '[data]\nroot = "none"\n').data.root == Path("none")


def test_a_setting_that_is_never_none_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed is 'none'; accepted: a value of type int"):
        load(tmp_path, 'seed = "none"\n')


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1", "sed is no setting (did you mean seed?); accepted: batch_size, "),
        (
            "[data]\nimagesize = 5",
            "data.imagesize is no setting (did you mean data.image_size?); accepted: cache, color, ",
        ),
        (
            "[first_stage.loss]\nweigths = 5",
            "first_stage.loss.weigths is no setting (did you mean first_stage.loss.wei",
        ),
        ("zzz = 1", "zzz is no setting; accepted: "),
        ("[colour]\nx = 1", "colour is no setting; accepted: "),
        ('seed = "1"', "seed is '1'; accepted: a value of type int"),
        ("seed = 1.0", "seed is 1.0; accepted: a value of type int"),
        ("seed = true", "seed is True; accepted: a value of type int"),
        ("device = 1", "device is 1; accepted: a value of type str"),
        ("lpips_weights = 1", "lpips_weights is 1; accepted: a value of type Path"),
        ("data = 5", "data is 5; accepted: a table"),
        ("[data]\nvalidation_fraction = true", "data.validation_fraction is True; accepted: a value of type float"),
        ("[data]\ncolor = 'grey'", "data.color is 'grey'; accepted: 'auto', 'gray', 'rgb'"),
        ("[data]\nimage_size = '5'", "data.image_size is '5'; accepted: a value of type int or \"none\""),
        ("[scoring]\nlpips = 1", "scoring.lpips is 1; accepted: a value of type bool"),
        ("[scoring]\nmap = 'mse'", "scoring.map is 'mse'; accepted: 'residual', "),
        ("[defects]\nsize = 0.5", "defects.size is 0.5; accepted: 2 values"),
        ("[defects]\nsize = [0.1, 0.2, 0.3]", "defects.size is [0.1, 0.2, 0.3]; accepted: 2 values"),
        ("[defects]\nsize = [0.1, 'x']", "defects.size is 'x'; accepted: a value of type float"),
        (f"[defects]\nprobability = {10**400}", "; accepted: a value of type float"),
        ("[data]\nimage_size = 3", "data.image_size is 3; accepted: None, or at least 16"),
        ("[second_stage]\nepochs = -1", "second_stage: stage.epochs is -1; accepted: at least 0"),
        ("[second_stage.loss]\nsigma = [0, 1]", "second_stage.loss: loss.sigma is (0.0, 1.0); accepted: "),
        ("[model]\npatch_size = 512", "model.patch_size is 512; accepted: at most data.image_size, 256"),
        ("seed = = 1", "cannot be read as TOML: "),
    ],
)
def test_a_wrong_file_says_where_and_what_is_accepted(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert str(raised.value).startswith(str(tmp_path / "config.toml"))
    assert message in str(raised.value)


def test_all_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    text = "sed = 1\nbatch_size = 'x'\n[data]\nimagesize = 5\ncolor = 'grey'\n[second_stage]\nepochs = -1\n"
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    for name in ("sed", "batch_size", "data.imagesize", "data.color", "stage.epochs"):
        assert f"{name} is " in str(raised.value)


@pytest.mark.parametrize("make", ["missing", "folder", "bytes"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make: str) -> None:
    file = tmp_path / "c.toml"
    if make == "folder":
        file.mkdir()
    if make == "bytes":
        file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"c\.toml cannot be read as TOML"):
        load_config(file)


def test_whole_numbers_serve_as_floats(tmp_path: Path) -> None:
    found = load(tmp_path, "[first_stage]\nlearning_rate = 1\n[first_stage.loss]\nweights = [1, 0, 2]\n")
    assert found.first_stage.loss == LossConfig(weights=(1.0, 0.0, 2.0))
    assert isinstance(found.first_stage.loss.weights[0], float)


def test_a_dictionary_that_is_none_is_refused() -> None:
    values: Any = 5
    with pytest.raises(ConfigError, match="is 5; accepted: a table"):
        config_from_dict(values)


@settings(max_examples=20)
@given(configs)
def test_a_written_file_names_every_setting_that_is_no_missing_path(config: Config) -> None:
    text = tomllib.loads(config_to_toml(config))
    left_out = {name for name, value in flat(config_to_dict(config)).items() if name not in flat(text)}
    assert left_out <= {name for name, is_path, _ in optional_settings(Config) if is_path}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return found
