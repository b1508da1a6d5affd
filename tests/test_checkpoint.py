"""Checkpoints: exact, verified to the byte, and clear about what is wrong."""

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_writers import assert_is, make, names
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twostage.checkpoint import FORMAT_VERSION, Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from twostage.errors import CheckpointError, OutputError

FILES = ("tensors.safetensors", "state.json")


# ---------------------------------------------------------------- round trip


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def awkward_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    complex_values = torch.complex(base, base + 1)
    return {
        "bfloat16": base.bfloat16(),
        "float16": base.half(),
        "float64": base.double() * 1e300,
        "int64": torch.tensor([torch.iinfo(torch.int64).min, -1, torch.iinfo(torch.int64).max]),
        "uint8": torch.arange(256).to(torch.uint8),
        "bool": base > 0,
        "not finite": torch.tensor([float("nan"), float("inf"), -0.0]),
        "nan payload": torch.tensor([0x7FC01234, -1], dtype=torch.int32).view(torch.float32),
        "0-d": torch.tensor(3.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 5),
        "transposed": base.t(),
        "strided": base[::2, 1::3],
        "expanded": base[0].expand(4, 8),
        "channels last": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        "shared a": base,
        "shared b": base.view(-1)[3:9],
        "requires grad": torch.nn.Parameter(base.clone()),
        "conjugate": complex_values.conj(),
        "negative view": complex_values.conj().imag,
        'a name, ".\\ü\n': base[1],
    }


@pytest.mark.parametrize("name", awkward_tensors().keys())
def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    tensors = awkward_tensors()
    found = load_checkpoint(save_checkpoint(tmp_path, Checkpoint(7, tensors, {}))).tensors
    assert found.keys() == tensors.keys()
    assert found[name].dtype == tensors[name].dtype
    assert found[name].shape == tensors[name].shape
    assert bits(found[name]) == bits(tensors[name].detach().clone())


def test_loaded_tensors_are_independent_of_one_another_and_of_the_file(tmp_path: Path) -> None:
    base = torch.zeros(4)
    path = save_checkpoint(tmp_path, Checkpoint(0, {"a": base, "b": base}, {}))
    found = load_checkpoint(path).tensors
    found["a"].fill_(1)
    assert found["b"].eq(0).all()
    assert load_checkpoint(path).tensors["a"].eq(0).all()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(metadata=st.dictionaries(st.text(), json_values, max_size=4), step=st.integers(0, 10**12))
def test_every_metadata_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any], step: int
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    found = load_checkpoint(save_checkpoint(folder, Checkpoint(step, {}, metadata)))
    # repr tells 1, 1.0 and True apart, and -0.0 from 0.0.
    assert repr(found.metadata) == repr(metadata)
    assert found.step == step


def test_large_integers_and_hash_like_values_come_back(tmp_path: Path) -> None:
    metadata = {"state": 2**13_999, "negative": -(2**128) + 1, "zeros": "0" * 64, "content_sha256": "f" * 64}
    assert load_checkpoint(save_checkpoint(tmp_path, Checkpoint(1, {}, metadata))).metadata == metadata


def test_tuple_comes_back_as_list(tmp_path: Path) -> None:
    assert load_checkpoint(save_checkpoint(tmp_path, Checkpoint(1, {}, {"size": (3, 4)}))).metadata == {"size": [3, 4]}


# ---------------------------------------------------------------- what is kept


def test_last_two_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    for step in (1, 5, 30, 1_000_000_000):
        assert save_checkpoint(tmp_path, make(step)) == tmp_path / f"step-{step:09d}"
    assert names(tmp_path) == ["step-000000030", "step-1000000000"]
    assert_is(load_checkpoint(tmp_path), make(1_000_000_000))
    assert_is(load_checkpoint(tmp_path / "step-000000030"), make(30))


def test_number_kept_can_be_chosen(tmp_path: Path) -> None:
    for step in range(5):
        save_checkpoint(tmp_path, make(step), keep=3)
    assert names(tmp_path) == ["step-000000002", "step-000000003", "step-000000004"]
    save_checkpoint(tmp_path, make(5), keep=1)
    assert names(tmp_path) == ["step-000000005"]


def test_same_step_can_be_saved_again(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1))
    save_checkpoint(tmp_path, make(2, mark=10.0))
    save_checkpoint(tmp_path, make(2, mark=20.0))
    assert names(tmp_path) == ["step-000000001", "step-000000002"]
    assert_is(load_checkpoint(tmp_path), make(2, mark=20.0))


def test_going_back_to_an_earlier_step_makes_it_the_newest(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, make(step), keep=3)
    save_checkpoint(tmp_path, make(15))
    assert names(tmp_path) == ["step-000000010", "step-000000015"]


def test_what_a_dead_writer_left_is_removed_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1))
    for name in (".writing-step-000000002-00000000", ".pruned-step-000000000-00000000", "step-000000009-copy", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tensors.safetensors").write_bytes(b"half")
    assert_is(latest_checkpoint(tmp_path).checkpoint, make(1))
    save_checkpoint(tmp_path, make(2))
    assert names(tmp_path) == ["other", "step-000000001", "step-000000002", "step-000000009-copy"]


# ---------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = {"weight": torch.arange(30.0).view(5, 6), "step": torch.tensor(4)}
    metadata = {"loss": [0.25, 1e-7], "name": "größe", "seed": 2**70, "flag": True, "nothing": None}
    return save_checkpoint(tmp_path_factory.mktemp("intact"), Checkpoint(4, tensors, metadata))


def damaged_copy(intact: Path, parent: Path, file: str, data: bytes) -> Path:
    copy = parent / intact.name
    shutil.copytree(intact, copy)
    (copy / file).write_bytes(data)
    return copy


@settings(max_examples=200)
@given(file=st.sampled_from(FILES), position=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_every_flipped_byte_is_found(
    intact: Path, tmp_path_factory: pytest.TempPathFactory, file: str, position: float, change: int
) -> None:
    data = bytearray((intact / file).read_bytes())
    data[int(position * len(data))] ^= change
    copy = damaged_copy(intact, tmp_path_factory.mktemp("flip"), file, bytes(data))
    with pytest.raises(CheckpointError, match=file):
        load_checkpoint(copy)


@settings(max_examples=60)
@given(file=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_found(
    intact: Path, tmp_path_factory: pytest.TempPathFactory, file: str, share: float
) -> None:
    data = (intact / file).read_bytes()
    copy = damaged_copy(intact, tmp_path_factory.mktemp("cut"), file, data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=file):
        load_checkpoint(copy)


@pytest.mark.parametrize("file", FILES)
def test_missing_file_is_named(intact: Path, tmp_path: Path, file: str) -> None:
    copy = damaged_copy(intact, tmp_path, file, b"")
    (copy / file).unlink()
    with pytest.raises(CheckpointError, match=rf"{file} cannot be read"):
        load_checkpoint(copy)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, None])
def test_other_version_is_named_with_the_accepted_one(intact: Path, tmp_path: Path, version: object) -> None:
    state = json.loads((intact / "state.json").read_text()) | {"format_version": version}
    copy = damaged_copy(intact, tmp_path, "state.json", json.dumps(state).encode())
    with pytest.raises(CheckpointError, match=rf"state\.json has format version {version}; accepted: {FORMAT_VERSION}"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 5}, "sha256"),
        ({"content_sha256": ""}, "64 hexadecimal digits"),
        ({"content_sha256": "\ud800"}, "64 hexadecimal digits"),
        ({"content_sha256": "0" * 64}, "sha256"),
        ({"more": 1}, "keys"),
    ],
)
def test_edited_state_is_found(intact: Path, tmp_path: Path, change: dict[str, object], message: str) -> None:
    state = json.loads((intact / "state.json").read_text()) | change
    copy = damaged_copy(intact, tmp_path, "state.json", json.dumps(state, indent=1).encode())
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy)


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format_version": ' + b"1" * 5000])
def test_state_that_is_another_thing_is_refused(intact: Path, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"state\.json"):
        load_checkpoint(damaged_copy(intact, tmp_path, "state.json", content))


def damage(checkpoint: Path) -> None:
    file = checkpoint / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_damaged_newest_is_named_with_the_intact_one(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, make(step), keep=3)
    damage(tmp_path / "step-000000003")
    with pytest.raises(CheckpointError, match=r"step-000000003/tensors.*newest intact checkpoint is .*step-000000002"):
        load_checkpoint(tmp_path)
    latest = latest_checkpoint(tmp_path)
    assert latest.path == tmp_path / "step-000000002"
    assert_is(latest.checkpoint, make(2))
    assert [("step-000000003" in str(error)) for error in latest.damaged] == [True]


def test_folder_without_an_intact_checkpoint_lists_all_damage(tmp_path: Path) -> None:
    for step in (1, 2):
        damage(save_checkpoint(tmp_path, make(step)))
    for search in (load_checkpoint, latest_checkpoint):
        with pytest.raises(CheckpointError, match=r"(?s)no intact checkpoint.*step-000000002.*step-000000001"):
            search(tmp_path)


def test_empty_folder_missing_path_and_plain_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"file is not a folder"):
        load_checkpoint(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"missing does not exist"):
        load_checkpoint(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"no intact checkpoint.*nothing is there"):
        load_checkpoint(tmp_path / "empty")
    with pytest.raises(CheckpointError, match=r"missing is not a folder"):
        latest_checkpoint(tmp_path / "missing")


# ---------------------------------------------------------------- what cannot be saved


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (Checkpoint(-1, {}, {}), "step is -1"),
        (Checkpoint(1.5, {}, {}), r"step is 1\.5"),  # type: ignore[arg-type]
        (Checkpoint(1, {}, {"loss": [1.0, float("nan")]}), r"metadata\['loss'\]\[1\] is nan"),
        (Checkpoint(1, {}, {"loss": float("-inf")}), r"metadata\['loss'\] is -inf"),
        (Checkpoint(1, {}, {"path": Path("x")}), r"metadata\['path'\] is a PosixPath"),
        (Checkpoint(1, {}, {"a": {1: 2}}), r"metadata\['a'\] has the key 1"),
        (Checkpoint(1, {}, {"a": 2**14_000}), "int of 14001 bits"),
        (Checkpoint(1, {"a": torch.zeros(2, 2).to_sparse()}, {}), "tensor 'a' is .*sparse"),
        (Checkpoint(1, {"a": torch.zeros(2, device="meta")}, {}), "on meta"),
        (Checkpoint(1, {"a": torch.zeros(2, dtype=torch.complex128)}, {}), "complex128"),
        (Checkpoint(1, {"__metadata__": torch.zeros(2)}, {}), "__metadata__"),
    ],
)
def test_what_cannot_come_back_is_not_saved(tmp_path: Path, checkpoint: Checkpoint, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_checkpoint(tmp_path / "new", checkpoint)
    assert not (tmp_path / "new").exists()


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keep is 0.*step is -2.*metadata\['a'\].*metadata\['b'\]"):
        save_checkpoint(tmp_path, Checkpoint(-2, {}, {"a": {1, 2}, "b": b""}), keep=0)


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/run cannot take the checkpoint of step 3"):
        save_checkpoint(tmp_path / "file" / "run", make(3))


def test_folder_that_is_not_writable_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("runs as root, whom no folder's mode stops")
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match=str(tmp_path)):
        save_checkpoint(tmp_path, make(3))


def test_full_disk_leaves_the_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, make(1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_checkpoint(tmp_path, make(2))
    assert names(tmp_path) == ["step-000000001"]
    assert_is(load_checkpoint(tmp_path), make(1))


def test_second_writer_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1))
    with (tmp_path / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process"):
            save_checkpoint(tmp_path, make(2))
    save_checkpoint(tmp_path, make(3))
    assert names(tmp_path) == ["step-000000001", "step-000000003"]


def test_file_system_without_locks_takes_checkpoints_and_cleans_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / ".writing-step-000000009-00000000").mkdir()
    save_checkpoint(tmp_path, make(1))
    assert names(tmp_path) == [".writing-step-000000009-00000000", "step-000000001"]


def test_lock_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OutputError, match="Input/output error"):
        save_checkpoint(tmp_path, make(1))
