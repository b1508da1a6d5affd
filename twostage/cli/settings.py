"""The configuration on the command line: flags over presets over a TOML file."""

import dataclasses
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from twostage.config import Config
from twostage.configfile import config_from_dict, config_to_dict, load_config
from twostage.presets import Category, Method, apply_preset

Preset = Literal[Category, Method]


def _unchecked(cls: type) -> type:
    """A dataclass with the fields and the documentation of ``cls`` and none of its checks.

    The flags are parsed into it, so that a value out of range is reported by ``config_from_dict`` under its full name
    and not by the parser in the middle of its work.
    """
    types_of = typing.get_type_hints(cls)
    fields = [
        (field.name, _unchecked(types_of[field.name]) if dataclasses.is_dataclass(types_of[field.name]) else field.type)
        for field in dataclasses.fields(cls)
    ]
    namespace = {"__post_init__": lambda self: None, "__doc__": cls.__doc__}
    return dataclasses.make_dataclass(
        cls.__name__, fields, bases=(cls,), namespace=namespace, frozen=True, kw_only=True, module=cls.__module__
    )


_UNCHECKED_CONFIG = _unchecked(Config)


def _without_checks(value: Any, cls: type) -> Any:
    """The same values in the class that :func:`_unchecked` made."""
    types_of = typing.get_type_hints(cls)
    values = {
        field.name: (
            _without_checks(getattr(value, field.name), types_of[field.name])
            if dataclasses.is_dataclass(types_of[field.name])
            else getattr(value, field.name)
        )
        for field in dataclasses.fields(cls)
    }
    return cls(**values)


def _checked(settings: Config) -> Config:
    """The configuration that was parsed, checked, with paths that hold in every folder."""
    config = config_from_dict(config_to_dict(settings))
    data = replace(config.data, root=_absolute(config.data.root), manifest=_absolute(config.data.manifest))
    defects = replace(config.defects, sources=_absolute(config.defects.sources))
    return replace(config, data=data, defects=defects, lpips_weights=_absolute(config.lpips_weights))


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A command that takes the whole configuration."""

    config: Path | None = None
    """TOML file with settings, named as the flags below. Relative paths in it start at the current folder."""
    preset: tyro.conf.UseAppendAction[tuple[Preset, ...]] = ()
    """The weights of AW-SSIM for a category of the paper, or a method of its tables; on top of the file, below the
    other flags."""
    settings: Annotated[Config, tyro.conf.arg(name="", constructor=_UNCHECKED_CONFIG)] = dataclasses.field(
        default_factory=lambda: typing.cast("Config", _without_checks(Config(), _UNCHECKED_CONFIG))
    )

    def without_file(self) -> Config:
        """What the flags change where no TOML file is given."""
        return Config()


    def base(self) -> "Configured":
        """This command with the settings that its flags are to change.

        Raises:
            ConfigError: the TOML file is not usable.
        """
        config = self.without_file() if self.config is None else load_config(self.config)
        for name in self.preset:
            config = apply_preset(config, name)
        return replace(self, settings=_without_checks(config, _UNCHECKED_CONFIG))

    def checked(self) -> "Configured":
        """This command with its settings checked.

        Raises:
            ConfigError: a value, or a combination of them, is not accepted.
        """
        return replace(self, settings=_checked(self.settings))
