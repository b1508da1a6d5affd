"""Configurations as plain dictionaries and as TOML files.

TOML has no None. A setting that is a number or None says ``"none"`` instead; a path is left out.
"""

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, Union

import tomli_w

from twostage.config import Config
from twostage.errors import ConfigError

_NONE = "none"

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_config(path: Path) -> Config:
    """Read a TOML file. What it leaves out keeps its default.

    Raises:
        ConfigError: the file cannot be read, is no TOML, has an unknown key, or a value of the wrong type or range.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    try:
        return config_from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def config_to_toml(config: Config) -> str:
    """The configuration as TOML, such that :func:`load_config` gives it back."""
    return tomli_w.dumps(_spell_none(config_to_dict(config), Config))


def config_to_dict(config: Config) -> dict[str, Any]:
    """Nested dictionaries of numbers, strings, lists and None."""
    return typing.cast("dict[str, Any]", _plain(config))


def described(config: Config, leave_out: Collection[str]) -> dict[str, Any]:
    """:func:`config_to_dict` without some settings, by their names as ``seed`` or ``data.cache``."""

    def kept(values: dict[str, Any], prefix: str) -> dict[str, Any]:
        return {
            key: kept(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in values.items()
            if f"{prefix}{key}" not in leave_out
        }

    return kept(config_to_dict(config), "")


def config_from_dict(values: dict[str, Any]) -> Config:
    """The inverse of :func:`config_to_dict`.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type or range; the message names the key.
    """
    return typing.cast("Config", _build(Config(), values, ""))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _spell_none(values: dict[str, Any], cls: type) -> dict[str, Any]:
    spelled: dict[str, Any] = {}
    for name, wanted in typing.get_type_hints(cls).items():
        value = values[name]
        if dataclasses.is_dataclass(wanted):
            spelled[name] = _spell_none(value, typing.cast("type", wanted))
        elif value is not None:
            spelled[name] = value
        elif _spells_none(_NONE, typing.get_args(wanted)):
            spelled[name] = _NONE
    return spelled


def _spells_none(value: Any, options: tuple[Any, ...]) -> bool:
    """Whether a value means None. A path may be called none: its None is the setting left out, its default."""
    return value is None or (isinstance(value, str) and value.lower() == _NONE and Path not in options)


def _build(base: Any, values: Any, prefix: str) -> Any:
    """The dataclass ``base`` with the given values in place of its own."""
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix.rstrip('.')} is {values!r}; accepted: a table")
    types_of = typing.get_type_hints(type(base))
    built, problems = {}, []
    for name, value in values.items():
        try:
            if name not in types_of:
                raise ConfigError(_unknown(prefix, name, set(types_of)))
            if dataclasses.is_dataclass(types_of[name]):
                built[name] = _build(getattr(base, name), value, f"{prefix}{name}.")
            else:
                built[name] = _convert(value, types_of[name], f"{prefix}{name}")
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))
    try:
        return dataclasses.replace(base, **built)
    except ConfigError as error:
        # A stage or a loss cannot say by itself which of the two it is.
        if str(error).startswith(prefix):
            raise
        raise ConfigError(f"{prefix.rstrip('.')}: {error}") from error


def _unknown(prefix: str, key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" (did you mean {prefix}{close[0]}?)" if close else ""
    return f"{prefix}{key} is no setting{hint}; accepted: {', '.join(sorted(known))}"


def _convert(value: Any, wanted: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (Union, types.UnionType):
        if type(None) in arguments and _spells_none(value, arguments):
            return None
        options = [option for option in arguments if option is not type(None)]
        return _convert_any(value, options, name, nullable=type(None) in arguments)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{name} is {value!r}; accepted: {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(arguments):
            raise ConfigError(f"{name} is {value!r}; accepted: {len(arguments)} values")
        return tuple(_convert(item, option, name) for item, option in zip(value, arguments, strict=True))
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{name} is {value!r}; accepted: a value of type {wanted.__name__}")
    return value


def _convert_any(value: Any, options: list[Any], name: str, *, nullable: bool) -> Any:
    problems = []
    for option in options:
        try:
            return _convert(value, option, name)
        except ConfigError as error:
            problems.append(str(error).partition("accepted: ")[2])
    if nullable and Path not in options:
        problems.append(f'"{_NONE}"')
    raise ConfigError(f"{name} is {value!r}; accepted: {' or '.join(problems)}")
