"""twostage synthesize"""

import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from twostage.cli.interruption import stopping
from twostage.cli.settings import Configured, unchecked, without_checks
from twostage.cli.terminal import TerminalProgress, print_result
from twostage.config import Config
from twostage.defects.contact_sheet import contact_sheet
from twostage.errors import ConfigError, OutputError
from twostage.report import plain_picture, save_png
from twostage.training_images import TrainingImages

_ACCEPTED = unchecked(Config, "data", "model", "defects", "seed")


@dataclass(frozen=True, kw_only=True)
class Synthesize(Configured):
    """Draw what the defect generator makes of a data set, to look at before training.

    The sheet shows the patches that the second stage begins with: each normal, with its defects, and the opacity of
    what was pasted.
    """

    sheet: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SHEET")]] = Path("defects.png")
    """PNG file to write; it is replaced."""
    samples: int = 16
    """Rows of the sheet."""
    accepts: ClassVar[type] = _ACCEPTED
    settings: Annotated[Config, tyro.conf.arg(name="", constructor=_ACCEPTED)] = dataclasses.field(
        default_factory=lambda: typing.cast("Config", without_checks(Config(), _ACCEPTED))
    )

    def execute(self) -> int:
        """Write the sheet.

        Raises:
            ConfigError: ``samples`` is below 1.
            DataError: the data or the sources cannot be used.
            OutputError: the sheet cannot be written.
            Stopped: by Ctrl-C.
        """
        if self.samples < 1:
            raise ConfigError(f"samples is {self.samples}; accepted: at least 1")
        if self.sheet.suffix.lower() != ".png":
            raise OutputError(f"sheet is {str(self.sheet)!r}; accepted: a name that ends in .png")
        settings = self.settings
        with stopping(lambda: "Nothing was written."), TerminalProgress() as progress:
            images = TrainingImages.load(settings, progress)
            store, sampler = images.store(settings), images.sampler(settings)
            picture = contact_sheet(store, sampler, samples=self.samples, epoch=settings.first_stage.epochs)
            save_png(self.sheet, plain_picture(picture))
        print_result(f"contact sheet: {self.sheet}")
        return 0
