"""Checkpoints: safetensors and JSON, nothing pickled, whole or not there.

A folder of checkpoints holds ``step-000000123/`` for step 123, each with ``tensors.safetensors`` and ``state.json``.
A new one is written under a hidden name, brought to the disk, and renamed; only then are older ones removed, and
they are renamed away before they are deleted. Whatever carries a visible name is therefore complete.
"""

import hashlib
import json
import math
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from twostage.errors import CheckpointError, OutputError
from twostage.files import sync_folder, write_durable
from twostage.locking import locked

FORMAT_VERSION = 1

_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_STATE_KEYS = {"format_version", "step", "tensors_sha256", "metadata", "content_sha256"}
_NAME = re.compile(r"step-([0-9]{9,})")
_WRITING, _REPLACED, _PRUNED = ".writing-", ".replaced-", ".pruned-"
_REPLACED_NAME = re.compile(r"\.replaced-step-([0-9]{9,})-[0-9a-f]{8}")
_HASH = re.compile(r"[0-9a-f]{64}")
_UNHASHED = "0" * 64
_DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    *(torch.bool, torch.complex64),
)
_LONGEST_INT = 14_000
"""Bits. Python refuses to read numbers of more than 4300 digits."""


@dataclass(frozen=True)
class Checkpoint:
    """What is saved of a run."""

    step: int
    """Counts over the whole run and grows from save to save; at least 0."""
    tensors: dict[str, Tensor]
    """Dense tensors of any dtype that safetensors knows, any shape and strides; on the CPU after loading."""
    metadata: dict[str, Any]
    """What JSON can hold: str keys; None, bool, int, float, str, lists, dicts. Tuples come back as lists."""


@dataclass(frozen=True)
class LatestCheckpoint:
    """The newest intact checkpoint of a folder."""

    path: Path
    checkpoint: Checkpoint
    damaged: tuple[CheckpointError, ...]
    """Why newer ones were passed over, newest first; empty where the newest is intact."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Save into ``folder`` (made if missing) and remove all but the last ``keep`` checkpoints.

    The checkpoint is on the disk when this returns. At no moment, also when the process is killed, is there less
    in the folder than there was before. Checkpoints of later steps are removed too: they belong to a course of the
    run that was left when it was resumed from an earlier step.

    Returns:
        The path of the checkpoint.

    Raises:
        ValueError: keep, the step, a tensor or a metadata value is not accepted; the message lists all of them.
        OutputError: the folder cannot be written, or another process is saving into it.
    """
    _require_accepted(checkpoint, keep)
    data = safetensors.torch.save({name: _plain(tensor) for name, tensor in checkpoint.tensors.items()})
    state = _encode_state(checkpoint, hashlib.sha256(data).hexdigest())
    name = f"step-{checkpoint.step:09d}"
    final = folder / name
    token = f"{name}-{secrets.token_hex(4)}"
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        with locked(folder, lambda: _refuse_writer(folder)) as alone:
            if alone:
                _remove(folder, _WRITING, _PRUNED)
            temporary = folder / f"{_WRITING}{token}"
            try:
                temporary.mkdir()
                write_durable(temporary / _TENSORS, data)
                write_durable(temporary / _STATE, state)
                sync_folder(temporary)
                if final.exists():
                    final.rename(folder / f"{_REPLACED}{token}")
                temporary.rename(final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            sync_folder(folder)
            _prune(folder, checkpoint.step, keep)
    except OSError as error:
        raise OutputError(f"{folder} cannot take the checkpoint of step {checkpoint.step}: {error}") from error
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Load one checkpoint, or the newest of a folder of checkpoints, after verifying every byte.

    Raises:
        CheckpointError: it is missing, damaged or of another format version; the message names the file, what was
            found and what is accepted. Where the newest of a folder is damaged, it names the newest intact one.
    """
    if not path.is_dir():
        found = "is not a folder" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {found}; accepted: a checkpoint or a folder of checkpoints")
    if _NAME.fullmatch(path.name) or (path / _STATE).exists() or (path / _TENSORS).exists():
        return _load_one(path)
    latest = latest_checkpoint(path)
    if latest.damaged:
        raise CheckpointError(f"{latest.damaged[0]}. The newest intact checkpoint is {latest.path}: give that path")
    return latest.checkpoint


def latest_checkpoint(folder: Path) -> LatestCheckpoint:
    """Find and load the newest intact checkpoint of a folder.

    Raises:
        CheckpointError: the folder is missing, or holds no intact checkpoint; the message lists what is damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; accepted: a folder of checkpoints")
    damaged: list[CheckpointError] = []
    for path in _candidates(folder):
        try:
            return LatestCheckpoint(path, _load_one(path), tuple(damaged))
        except CheckpointError as error:
            damaged.append(error)
    reasons = "".join(f"\n  {error}" for error in damaged) or " nothing is there"
    raise CheckpointError(f"{folder} holds no intact checkpoint step-*:{reasons}")


def holds_checkpoints(folder: Path) -> bool:
    """Whether a save was ever finished there. A run that is killed during its first leaves a folder without any."""
    return folder.is_dir() and bool(_candidates(folder))


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by names that begin with ``prefix``."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _require_accepted(checkpoint: Checkpoint, keep: int) -> None:
    problems = []
    if keep < 1:
        problems.append(f"keep is {keep}; accepted: at least 1")
    if not isinstance(checkpoint.step, int) or checkpoint.step < 0:
        problems.append(f"step is {checkpoint.step!r}; accepted: an int of at least 0")
    for name, tensor in checkpoint.tensors.items():
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.dtype not in _DTYPES:
            given = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            accepted = f"dense, with values, one of {', '.join(map(str, _DTYPES))}"
            problems.append(f"tensor {name!r} is {given}; accepted: {accepted}")
        if name == "__metadata__":
            problems.append(f"tensor {name!r}: safetensors keeps this name for itself")
    problems += _not_json(checkpoint.metadata, "metadata")
    if problems:
        raise ValueError(f"the checkpoint cannot be saved: {'; '.join(problems)}")


def _not_json(value: object, where: str) -> list[str]:
    if isinstance(value, Mapping):
        keys = [f"{where} has the key {key!r}; accepted: str" for key in value if not isinstance(key, str)]
        return keys + [problem for key, item in value.items() for problem in _not_json(item, f"{where}[{key!r}]")]
    if isinstance(value, list | tuple):
        return [problem for index, item in enumerate(value) for problem in _not_json(item, f"{where}[{index}]")]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{where} is {value}; accepted: finite numbers"]
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return [f"{where} is an int of {value.bit_length()} bits; accepted: at most {_LONGEST_INT}"]
    if value is None or isinstance(value, bool | int | float | str):
        return []
    return [f"{where} is a {type(value).__name__}; accepted: None, bool, int, float, str, list, tuple, dict"]


def _plain(tensor: Tensor) -> Tensor:
    # A copy of its own: safetensors refuses strides and memory shared between tensors.
    return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)


def _encode_state(checkpoint: Checkpoint, tensors_hash: str) -> bytes:
    state = {
        "format_version": FORMAT_VERSION,
        "step": checkpoint.step,
        "tensors_sha256": tensors_hash,
        "metadata": checkpoint.metadata,
        "content_sha256": _UNHASHED,
    }
    text = json.dumps(state, indent=1, allow_nan=False)
    head, _, tail = text.rpartition(_UNHASHED)
    return f"{head}{hashlib.sha256(text.encode()).hexdigest()}{tail}".encode()


def _refuse_writer(folder: Path) -> NoReturn:
    raise OutputError(f"{folder}: another process is saving into it; accepted: one writer")


def _remove(folder: Path, *prefixes: str) -> None:
    for path in list(folder.iterdir()):
        if path.name.startswith(prefixes) and path.is_dir():
            shutil.rmtree(path)


def _prune(folder: Path, step: int, keep: int) -> None:
    steps = {path: int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    kept = sorted((path for path in steps if steps[path] <= step), key=steps.__getitem__)[-keep:]
    for path in steps.keys() - set(kept):
        path.rename(folder / f"{_PRUNED}{path.name}-{secrets.token_hex(4)}")
    _remove(folder, _PRUNED, _REPLACED)


def _candidates(folder: Path) -> list[Path]:
    """Checkpoints by step, newest first, with one that is being replaced behind the one that replaces it."""
    found = []
    try:
        for path in folder.iterdir():
            visible = _NAME.fullmatch(path.name)
            if match := visible or _REPLACED_NAME.fullmatch(path.name):
                found.append((int(match[1]), visible is not None, path))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error
    return [path for _, _, path in sorted(found, reverse=True)]


def _load_one(path: Path) -> Checkpoint:
    state = _read_state(path / _STATE)
    file = path / _TENSORS
    data = _read(file)
    found = hashlib.sha256(data).hexdigest()
    if found != state["tensors_sha256"]:
        accepted = f"{state['tensors_sha256']} ({_STATE})"
        raise CheckpointError(f"{file} is damaged: sha256 {found} of {len(data)} bytes; accepted: {accepted}")
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    return Checkpoint(step=state["step"], tensors=tensors, metadata=state["metadata"])


def _read_state(file: Path) -> dict[str, Any]:
    data = _read(file)
    try:
        state = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: not JSON, {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{file} holds a {type(state).__name__}; accepted: the JSON object of a checkpoint")
    version = state.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{file} has format version {version!r}; accepted: {FORMAT_VERSION}")
    if state.keys() != _STATE_KEYS:
        raise CheckpointError(f"{file} is damaged: keys {sorted(state)}; accepted: {sorted(_STATE_KEYS)}")
    claimed = str(state["content_sha256"])
    if not _HASH.fullmatch(claimed):
        raise CheckpointError(f"{file} is damaged: content_sha256 {claimed!r}; accepted: 64 hexadecimal digits")
    head, _, tail = data.rpartition(claimed.encode())
    found = hashlib.sha256(head + _UNHASHED.encode() + tail).hexdigest()
    if found != claimed:
        raise CheckpointError(f"{file} is damaged: its content has sha256 {found}; accepted: {claimed}")
    return state


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
