"""twostage shard"""

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
from twostage.data import choose_color, find_samples, split_validation
from twostage.data.prepared import Preparer
from twostage.data.shards import write_shards
from twostage.defects.appearance import describe
from twostage.errors import ConfigError

_ACCEPTED = unchecked(Config, "data", "model", "seed")


@dataclass(frozen=True, kw_only=True)
class Shard(Configured):
    """Write the training images of a data set as shards: tar files of decoded images, to train from with --data.shards.

    For sets larger than the machine. The images are resized (--data.image-size), brought to one colour format, and
    shuffled once; those held out for the threshold lie apart. Any reader of WebDataset can read the files.
    """

    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """Folder for the shards: a new or empty one, or with --overwrite one that holds shards."""
    images_per_shard: int = 1000
    """Training images in a tar file."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace shards."""
    accepts: ClassVar[type] = _ACCEPTED
    settings: Annotated[Config, tyro.conf.arg(name="", constructor=_ACCEPTED)] = dataclasses.field(
        default_factory=lambda: typing.cast("Config", without_checks(Config(), _ACCEPTED))
    )

    def execute(self) -> int:
        """Write the shards.

        Raises:
            ConfigError: ``images_per_shard`` is below 1.
            DataError: the data cannot be used, or images of it cannot be read.
            OutputError: the folder holds something else, or cannot be written.
            Stopped: by Ctrl-C.
        """
        if self.images_per_shard < 1:
            raise ConfigError(f"images_per_shard is {self.images_per_shard}; accepted: at least 1")
        data, seed = self.settings.data, self.settings.seed
        with stopping(lambda: "The shards are not finished: start again with --overwrite."), TerminalProgress() as bars:
            samples = find_samples(data).train
            color = choose_color([sample.path for sample in samples], data.color, max_pixels=data.max_pixels)
            train, held_out = split_validation(samples, data.validation_fraction, seed, data.validation_limit)
            write_shards(
                self.out,
                train,
                held_out,
                Preparer(data, color, describe),
                seed=seed,
                images_per_shard=self.images_per_shard,
                overwrite=self.overwrite,
                progress=lambda done, total: bars.update("writing shards", done, total),
            )
        print_result(f"{len(train)} training images, {len(held_out)} held out: {self.out}")
        return 0
