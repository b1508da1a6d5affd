"""twostage check-data"""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from twostage.cli.interruption import stopping
from twostage.cli.settings import Configured, unchecked, without_checks
from twostage.cli.terminal import TerminalProgress, print_result
from twostage.config import Config
from twostage.data import check_images

_ACCEPTED = unchecked(Config, "data", "model")


@dataclass(frozen=True, kw_only=True)
class CheckData(Configured):
    """Look at every image and mask of a data set and list all that is wrong, as happens before every training.

    Exit status 1 where something is wrong that training would refuse.
    """

    accepts: ClassVar[type] = _ACCEPTED
    settings: Annotated[Config, tyro.conf.arg(name="", constructor=_ACCEPTED)] = dataclasses.field(
        default_factory=lambda: typing.cast("Config", without_checks(Config(), _ACCEPTED))
    )

    def execute(self) -> int:
        """Print every finding; 1 where one is fatal.

        Raises:
            DataError: neither data.root nor data.manifest is given.
            Stopped: by Ctrl-C.
        """
        settings = self.settings
        with stopping(lambda: "Not everything was looked at."), TerminalProgress() as progress:
            findings = check_images(
                settings.data,
                patch_size=settings.model.patch_size,
                progress=lambda done, total: progress.update("checking images", done, total),
            )
        for finding in sorted(findings, key=lambda finding: not finding.fatal):
            print_result(f"{'error' if finding.fatal else 'note '}  {finding}")
        errors = sum(finding.fatal for finding in findings)
        print_result(f"{errors} errors, {len(findings) - errors} notes")
        return 1 if errors else 0
