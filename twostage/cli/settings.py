"""The configuration on the command line: flags over presets over a TOML file."""

import dataclasses
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro

from twostage.config import Config
from twostage.configfile import config_from_dict, config_to_dict, load_config
from twostage.presets import Category, Method, apply_preset

Preset = Literal[Category, Method]

_Command = TypeVar("_Command", bound="Configured")


def unchecked(cls: type, *parts: str) -> type:
    """A dataclass with the fields and the documentation of ``cls`` (or only some of its fields) and none of its checks.

    The flags are parsed into it, so that a value out of range is reported by ``config_from_dict`` in this package's
    words and not by the parser in the middle of its work.
    """
    types_of = typing.get_type_hints(cls)
    fields = [
        (field.name, unchecked(types_of[field.name]) if dataclasses.is_dataclass(types_of[field.name]) else field.type)
        for field in dataclasses.fields(cls)
        if not parts or field.name in parts
    ]
    namespace = {"__post_init__": lambda self: None, "__doc__": cls.__doc__, "__module__": cls.__module__}
    bases = () if parts else (cls,)
    return dataclasses.make_dataclass(cls.__name__, fields, bases=bases, namespace=namespace, frozen=True, kw_only=True)


def without_checks(value: Any, cls: type) -> Any:
    """The same values in a class that :func:`unchecked` made."""
    types_of = typing.get_type_hints(cls)
    values = {}
    for field in dataclasses.fields(cls):
        own, wanted = getattr(value, field.name), typing.cast("type", types_of[field.name])
        values[field.name] = without_checks(own, wanted) if dataclasses.is_dataclass(own) else own
    return cls(**values)


_EVERYTHING = unchecked(Config)


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A command that takes settings."""

    accepts: ClassVar[type] = _EVERYTHING
    """Which settings: made by :func:`unchecked`."""

    config: Path | None = None
    """TOML file with settings, named as the flags below. Relative paths in it start at the current folder."""
    settings: Annotated[Config, tyro.conf.arg(name="", constructor=_EVERYTHING)] = dataclasses.field(
        default_factory=lambda: typing.cast("Config", without_checks(Config(), _EVERYTHING))
    )

    def presets(self) -> tuple[str, ...]:
        """What changes the file's settings before the flags do."""
        return ()

    def starting_config(self) -> Config:
        """What presets and flags change: the TOML file, or the defaults.

        Raises:
            ConfigError: the TOML file is not usable.
        """
        return Config() if self.config is None else load_config(self.config)

    def base(self) -> Config:
        """What the flags change.

        Raises:
            ConfigError: the TOML file is not usable.
        """
        config = self.starting_config()
        for name in self.presets():
            config = apply_preset(config, name)
        return config

    @classmethod
    def with_defaults(cls: type[_Command], config: Config) -> _Command:
        """What the parser starts from: this command's own defaults, and ``config`` for its flags to change."""
        values: dict[str, Any] = {
            field.name: tyro.MISSING
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        return cls(**values, settings=without_checks(config, cls.accepts))

    def checked(self: _Command) -> _Command:
        """This command with its settings checked, and with paths that hold in every folder.

        Raises:
            ConfigError: a value, or a combination of them, is not accepted.
        """
        config = config_from_dict({**config_to_dict(self.base()), **config_to_dict(self.settings)})
        data = replace(config.data, root=_absolute(config.data.root), manifest=_absolute(config.data.manifest))
        data = replace(data, cache=_absolute(data.cache), shards=_absolute(data.shards))
        defects = replace(config.defects, sources=_absolute(config.defects.sources))
        weights = _absolute(config.lpips_weights)
        return replace(self, settings=replace(config, data=data, defects=defects, lpips_weights=weights))


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
