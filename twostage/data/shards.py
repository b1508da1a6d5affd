"""Training images in tar files, in the layout of WebDataset: for sets that no machine holds.

``train-000000.tar`` and so on hold for image number n ``<n>.json`` (the path it had) and ``<n>.npy`` (its pixels [C, H,
W] as training wants them), in a random order that stays. ``index.npy`` says where everything lies, ``validation.tar``
and ``validation.npy`` are the same for the images held out, and ``shards.json``, written last, says how all was made.
Any tar program and any reader of WebDataset can read the shards; training finds each image by the index.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twostage.config import DataConfig
from twostage.data.ahead import in_order
from twostage.data.mapped import IMAGE, MappedImages
from twostage.data.order import key_of, permute
from twostage.data.prepared import MOST_FEATURES, Prepared, PreparedImage, Preparer
from twostage.data.samples import Finding, Sample, finding_of, require_clean
from twostage.errors import DataError, OutputError
from twostage.files import write_text_atomic

FORMAT_VERSION = 1
_STREAM = 7
_BLOCK = 512
_DESCRIPTION = "shards.json"
_OTHER_FILES = ("validation.tar", "index.npy", "validation.npy")
_FIELDS = {
    "format_version": int,
    "color": str,
    "image_size": int | None,
    "training_images": int,
    "validation_images": int,
    "bytes": dict,
}

_ROW = np.dtype(
    [
        *((name, IMAGE[name]) for name in IMAGE.names or ()),
        ("name", "<i8"),  # where the JSON of the image begins
        ("name_length", "<i4"),
        ("digest", "<u8"),
        ("features", "<f4", (MOST_FEATURES,)),
    ]
)


@dataclass(frozen=True)
class Shards:
    """What :func:`open_shards` found."""

    train: Prepared
    validation: Prepared
    names: Sequence[str]
    """Of the training images: the paths they had."""
    color: Any
    """gray or rgb."""
    images_in_shard: npt.NDArray[np.int64]


def write_shards(
    folder: Path,
    train: Sequence[Sample],
    validation: Sequence[Sample],
    preparer: Preparer,
    *,
    seed: int,
    images_per_shard: int,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a data set as shards.

    Args:
        folder: a new or empty one, or with ``overwrite`` one that holds shards, whole or not.
        seed: of the order of the training images.
        images_per_shard: at least 1.

    Raises:
        DataError: images cannot be read; all of them are listed, and the shards are not finished.
        OutputError: the folder holds something else, or cannot be written.
    """
    _claim(folder, overwrite=overwrite)
    total = len(train) + len(validation)
    order = permute(np.arange(len(train)), len(train), key_of(seed, _STREAM))
    findings: list[Finding] = []
    try:
        shuffled = (train[index] for index in order.tolist())
        names = [f"train-{number:06d}.tar" for number in range(-(-len(train) // images_per_shard))]
        reading = _prepared(shuffled, preparer, findings)
        written = _write(folder, names, "index.npy", reading, images_per_shard, lambda done: progress(done, total))
        held_out = _prepared(iter(validation), preparer, findings)
        _write(
            folder, ["validation.tar"], "validation.npy", held_out, total, lambda done: progress(written + done, total)
        )
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error
    require_clean(findings)
    description = {
        "format_version": FORMAT_VERSION,
        "color": preparer.color,
        "image_size": preparer.config.image_size,
        "seed": seed,
        "training_images": len(train),
        "validation_images": len(validation),
        "bytes": {name: (folder / name).stat().st_size for name in (*names, *_OTHER_FILES)},
    }
    write_text_atomic(folder / _DESCRIPTION, json.dumps(description, indent=1) + "\n")


def open_shards(folder: Path, config: DataConfig) -> Shards:
    """Read the index of shards; no shard is opened.

    Raises:
        DataError: the folder holds no finished shards, they were made with other settings than ``config`` has, or one
            of them has another size than when it was written.
    """
    description = _description_in(folder)
    for name, value in (("image_size", config.image_size), ("color", config.color)):
        if value != description[name] and value != "auto":
            raise DataError(f"{folder} has shards with {name} {description[name]!r}, data.{name} is {value!r}")
    for name, size in description["bytes"].items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            raise DataError(f"{folder / name} has {found} bytes; accepted: {size}, as written by `twostage shard`")
    channels = 1 if description["color"] == "gray" else 3
    train_files = [folder / name for name in description["bytes"] if name not in _OTHER_FILES]
    rows = _index(folder / "index.npy", description["training_images"])
    held_out = _index(folder / "validation.npy", description["validation_images"])
    return Shards(
        _as_prepared(rows, train_files, channels),
        _as_prepared(held_out, [folder / "validation.tar"], channels),
        _Names(rows, train_files),
        description["color"],
        np.bincount(rows["file"], minlength=len(train_files)).astype(np.int64),
    )


def _description_in(folder: Path) -> dict[str, Any]:
    """What ``shards.json`` says."""
    file, accepted = folder / _DESCRIPTION, "accepted: what `twostage shard` wrote"
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no finished shards ({error}); {accepted}") from error
    found = description if isinstance(description, dict) else {}
    wrong = [name for name, kind in _FIELDS.items() if name not in found or not isinstance(found[name], kind)]
    if wrong:
        raise DataError(f"{file} is damaged: {', '.join(wrong)} missing or of another type; {accepted}")
    if found["format_version"] != FORMAT_VERSION:
        version = found["format_version"]
        raise DataError(f"{folder} has shards of format version {version!r}; accepted: {FORMAT_VERSION}")
    return found


def _index(file: Path, count: int) -> npt.NDArray[Any]:
    """Rows of so many images."""
    try:
        rows = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} is damaged: {error}; accepted: what `twostage shard` wrote") from error
    if rows.dtype != _ROW or rows.shape != (count,):
        raise DataError(f"{file} holds {rows.dtype.name} {rows.shape}; accepted: a row for each of {count} images")
    found: npt.NDArray[Any] = rows
    return found


class _Names(Sequence[str]):
    """Read from the shards when they are asked for."""

    def __init__(self, rows: npt.NDArray[Any], files: Sequence[Path]) -> None:
        self.rows = rows
        self.files = files

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = self.rows[index]
        with self.files[row["file"]].open("rb") as file:
            file.seek(int(row["name"]))
            return json.loads(file.read(int(row["name_length"])))["path"]


def _as_prepared(rows: npt.NDArray[Any], files: Sequence[Path], channels: int) -> Prepared:
    return Prepared(MappedImages(files, rows, channels), rows["features"][:, : 4 * channels], rows["digest"])


def _claim(folder: Path, *, overwrite: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
        own = [path for path in found if path.suffix in (".tar", ".npy") or path.name == _DESCRIPTION]
        if len(own) < len(found) or (own and not overwrite):
            accepted = "accepted: a new or empty folder, or shards to replace (--overwrite)"
            raise OutputError(f"{folder} holds {min(path.name for path in found)}; {accepted}")
        # First of all what says that the shards are whole.
        for path in sorted(own, key=lambda path: path.name != _DESCRIPTION):
            path.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error


def _prepared(
    samples: Iterator[Sample], preparer: Preparer, findings: list[Finding]
) -> Iterator[tuple[Path, PreparedImage]]:
    """In order; what cannot be read becomes a finding."""

    def prepare(sample: Sample) -> tuple[Path, PreparedImage | Finding]:
        try:
            return sample.path, preparer(sample.path)
        except DataError as error:
            return sample.path, finding_of(sample.path, error)

    for path, outcome in in_order(samples, prepare):
        if isinstance(outcome, Finding):
            findings.append(outcome)
        else:
            yield path, outcome


def _write(
    folder: Path,
    names: Sequence[str],
    index: str,
    images: Iterator[tuple[Path, PreparedImage]],
    images_per_shard: int,
    progress: Callable[[int], None],
) -> int:
    """Write one tar file after another, and beside them the index; the number of images."""
    done = 0
    with (folder / f".{index}.rows").open("w+b") as rows:
        for number, name in enumerate(names):
            with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
                for path, image in islice(images, images_per_shard):
                    rows.write(_add(tar, number, f"{done:09d}", path, image).tobytes())
                    done += 1
                    progress(done)
        rows.flush()
        table = np.memmap(rows, dtype=_ROW, mode="r", shape=(done,)) if done else np.zeros(0, dtype=_ROW)
        np.save(folder / index, table, allow_pickle=False)
    (folder / f".{index}.rows").unlink()
    return done


def _add(tar: tarfile.TarFile, number: int, key: str, path: Path, image: PreparedImage) -> npt.NDArray[Any]:
    """Append an image to a shard; its row of the index."""
    row = np.zeros(1, dtype=_ROW)
    name = json.dumps({"path": str(path)}).encode()
    row["name"], row["name_length"] = _append(tar, f"{key}.json", name), len(name)
    data = io.BytesIO()
    np.save(data, image.pixels, allow_pickle=False)
    begin = _append(tar, f"{key}.npy", data.getvalue())
    row["offset"] = begin + data.tell() - image.pixels.nbytes
    row["file"], row["itemsize"], row["digest"] = number, image.pixels.itemsize, image.digest
    row["height"], row["width"] = image.pixels.shape[1:]
    row["features"][0, : len(image.features)] = image.features
    return row


def _append(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a file to a tar file; where its content begins."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    begin = int(tar.offset) + _BLOCK
    tar.addfile(member, io.BytesIO(data))
    return begin
