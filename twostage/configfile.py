"""Configurations as plain dictionaries and as TOML files."""

import dataclasses
import difflib
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

import tomli_w

from twostage.config import Config
from twostage.errors import ConfigError

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
    """The configuration as TOML. Values of None, which TOML cannot say, are left out: they are the defaults."""
    return tomli_w.dumps(_without_none(config_to_dict(config)))


def config_to_dict(config: Config) -> dict[str, Any]:
    """Nested dictionaries of numbers, strings, lists and None."""
    return typing.cast("dict[str, Any]", _plain(config))


def config_from_dict(values: dict[str, Any]) -> Config:
    """The inverse of :func:`config_to_dict`.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type or range; the message names the key.
    """
    return typing.cast("Config", _build(Config, values, ""))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }


def _build(cls: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix.rstrip('.')} is {values!r}; accepted: a table")
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError("; ".join(_unknown(prefix, key, known) for key in unknown))
    types_of = typing.get_type_hints(cls)
    defaults = _defaults(cls)
    built = {}
    for name, value in values.items():
        wanted = types_of[name]
        if dataclasses.is_dataclass(wanted):
            # A table may leave out what its default says, also where the default differs from the class's own.
            base = _plain(defaults[name]) if name in defaults else {}
            value = {**base, **value} if isinstance(value, dict) else value
            built[name] = _build(typing.cast("type", wanted), value, f"{prefix}{name}.")
        else:
            built[name] = _convert(value, wanted, f"{prefix}{name}")
    try:
        return cls(**built)
    except TypeError as error:
        missing = ", ".join(f"{prefix}{name}" for name in known if name not in values and name not in defaults)
        raise ConfigError(f"{missing} missing; accepted: a value for each") from error


def _defaults(cls: type) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _unknown(prefix: str, key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" (did you mean {prefix}{close[0]}?)" if close else ""
    return f"{prefix}{key} is no setting{hint}; accepted: {', '.join(sorted(known))}"


def _convert(value: Any, wanted: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert_any(value, [option for option in arguments if option is not type(None)], name)
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
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{name} is {value!r}; accepted: a value of type {wanted.__name__}")
    return value


def _convert_any(value: Any, options: list[Any], name: str) -> Any:
    problems = []
    for option in options:
        try:
            return _convert(value, option, name)
        except ConfigError as error:
            problems.append(str(error).partition("accepted: ")[2])
    raise ConfigError(f"{name} is {value!r}; accepted: {' or '.join(problems)}")
