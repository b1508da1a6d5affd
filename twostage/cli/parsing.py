"""The command line as a tree of dataclasses."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol, cast

import tyro

from twostage.cli.ablate import Ablate
from twostage.cli.check_data import CheckData
from twostage.cli.demo import Demo
from twostage.cli.evaluate import Evaluate, Report
from twostage.cli.predict import Predict
from twostage.cli.reproduce import Reproduce
from twostage.cli.settings import Configured
from twostage.cli.shard import Shard
from twostage.cli.synthesize import Synthesize
from twostage.cli.train import Train

COMMANDS: dict[str, type] = {
    "demo": Demo,
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "report": Report,
    "check-data": CheckData,
    "shard": Shard,
    "synthesize": Synthesize,
    "ablate": Ablate,
    "reproduce": Reproduce,
}

_DESCRIPTION = (
    "Find defects on surfaces after training on images of good parts alone: an autoencoder trained in two stages "
    "(Shiferaw & Yao 2024). `twostage COMMAND --help` explains a command; settings can be given as flags or as a TOML "
    "file (--config)."
)


class Command(Protocol):
    """What the command line names."""

    def execute(self) -> int:
        """Do it and return the exit status."""


def parse(arguments: Sequence[str]) -> Command:
    """The command with its values. On ``--help``, and on what it cannot parse, the process ends (status 0, or 2).

    Raises:
        ConfigError: the TOML file is not usable, or a setting is not accepted.
    """
    command = _parse(arguments, {})
    if not isinstance(command, Configured):
        return command
    # The flags are read twice, for only they say which file and presets they are to change.
    final = _parse(arguments, {_name_of(command): type(command).with_defaults(command.base())})
    assert isinstance(final, Configured)
    return cast("Command", final.checked())


def _parse(arguments: Sequence[str], defaults: dict[str, Any]) -> Command:
    annotated: Any = Annotated
    options: Any = None
    for name, command in COMMANDS.items():
        more = {"default": defaults[name]} if name in defaults else {}
        # In the list of commands a line each is enough; a command's own help has its whole description.
        summary = None if name in arguments[:1] else (command.__doc__ or "").partition("\n")[0]
        option = annotated[command, tyro.conf.subcommand(name, description=summary, **more)]
        options = option if options is None else options | option
    parsed = tyro.cli(
        options,
        prog="twostage",
        description=_DESCRIPTION,
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    return cast("Command", parsed)


def _name_of(command: object) -> str:
    return next(name for name, cls in COMMANDS.items() if isinstance(command, cls))
