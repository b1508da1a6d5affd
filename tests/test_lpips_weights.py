"""LPIPS weights: found where they should be, the published ones or refused, and nothing else unpickled."""

import importlib
import pickle
import re
import sys
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lpips_oracles import random_weights
from safetensors.torch import save_file
from torch import Tensor

from twostage.errors import WeightsError
from twostage.lpips import load_lpips_weights
from twostage.lpips import weights as module
from twostage.lpips.weights import HEAD_SHAPES, TRUNK_SHAPES, content_hash

SUFFIXES = (".npz", ".pth", ".safetensors")


@pytest.fixture(autouse=True)
def _no_weights_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No path from the environment, no package with heads, no network, an empty cache."""

    def offline(url: str, *_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network in tests")

    monkeypatch.delenv("TWOSTAGE_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Weights that take the part of the published ones."""
    weights = random_weights()
    monkeypatch.setattr(module, "TRUNK_HASH", content_hash({name: weights[name] for name in TRUNK_SHAPES}))
    monkeypatch.setattr(module, "HEADS_HASH", content_hash({name: weights[name] for name in HEAD_SHAPES}))
    return weights


def write(path: Path, weights: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in weights.items()}
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


def trunk_of(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weights[name] for name in TRUNK_SHAPES}


def heads_of(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weights[name] for name in HEAD_SHAPES}


def as_the_package_names_them(heads: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace(".weight", ".model.1.weight"): tensor for name, tensor in heads.items()}


def assert_equal(found: dict[str, Tensor], accepted: dict[str, Tensor]) -> None:
    assert found.keys() == accepted.keys()
    assert all(torch.equal(found[name], accepted[name]) for name in accepted)


# ---------------------------------------------------------------- the real ones


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_published_weights_pass_in_every_container(lpips_weights: Path, tmp_path: Path, suffix: str) -> None:
    weights = load_lpips_weights(lpips_weights)
    assert_equal(load_lpips_weights(write(tmp_path / f"both{suffix}", weights)), weights)


def test_published_weights_with_one_bit_changed_are_refused(lpips_weights: Path, tmp_path: Path) -> None:
    weights = load_lpips_weights(lpips_weights)
    for name, part in (("features.6.weight", "trunk"), ("lin4.weight", "heads")):
        changed = {key: tensor.clone() for key, tensor in weights.items()}
        changed[name].view(torch.int32).view(-1)[7] ^= 1
        with pytest.raises(WeightsError, match=f"the LPIPS {part} in .* are not the published ones: content hash"):
            load_lpips_weights(write(tmp_path / "changed.safetensors", changed))


# ---------------------------------------------------------------- where they are looked for


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_file_or_two_in_a_folder(published: dict[str, Tensor], tmp_path: Path, suffix: str) -> None:
    assert_equal(load_lpips_weights(write(tmp_path / "one" / f"both{suffix}", published)), published)
    assert_equal(load_lpips_weights(tmp_path / "one"), published)
    write(tmp_path / "two" / f"alexnet{suffix}", trunk_of(published))
    write(tmp_path / "two" / "heads.npz", heads_of(published))
    (tmp_path / "two" / "NOTES.md").write_text("something else")
    assert_equal(load_lpips_weights(tmp_path / "two"), published)


def test_whole_networks_and_the_names_of_the_package_are_understood(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    trunk = trunk_of(published) | {"classifier.1.weight": torch.zeros(4, 4), "classifier.1.bias": torch.zeros(4)}
    write(tmp_path / "alexnet.pth", trunk)
    write(tmp_path / "alex.pth", as_the_package_names_them(heads_of(published)))
    assert_equal(load_lpips_weights(tmp_path), published)


def test_environment_names_a_path_and_the_argument_goes_before_it(
    published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "weights.npz", published)
    monkeypatch.setenv("TWOSTAGE_LPIPS_WEIGHTS", str(path))
    assert_equal(load_lpips_weights(), published)
    with pytest.raises(WeightsError, match="other does not exist"):
        load_lpips_weights(tmp_path / "other")
    monkeypatch.setenv("TWOSTAGE_LPIPS_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(WeightsError, match="gone does not exist"):
        load_lpips_weights()


def install_package(folder: Path, heads: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """A package lpips that cannot be imported, as where torchvision is missing."""
    write(folder / "lpips" / "weights" / "v0.1" / "alex.pth", as_the_package_names_them(heads))
    (folder / "lpips" / "__init__.py").write_text("import a_module_that_is_not_there")
    find_spec = importlib.machinery.PathFinder.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find_spec(name, [str(folder)]))


def test_trunk_from_the_cache_and_heads_from_a_package_that_is_not_imported(
    published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(tmp_path / "site", heads_of(published), monkeypatch)
    cached = tmp_path / "torch_home" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    write(cached, trunk_of(published))
    assert_equal(load_lpips_weights(), published)
    assert "lpips" not in sys.modules


def test_heads_that_the_path_lacks_come_from_the_package(
    published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(tmp_path / "site", heads_of(published), monkeypatch)
    assert_equal(load_lpips_weights(write(tmp_path / "trunk.safetensors", trunk_of(published))), published)


def test_trunk_is_fetched_once_with_its_full_hash(
    published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(tmp_path / "site", heads_of(published), monkeypatch)
    fetched = []

    def fetch(url: str, destination: str, hash_prefix: str) -> None:
        fetched.append((url, hash_prefix))
        write(Path(destination), trunk_of(published))

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert_equal(load_lpips_weights(), published)
    assert_equal(load_lpips_weights(), published)
    assert [url for url, _ in fetched] == ["https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"]
    assert re.fullmatch("7be5be79[0-9a-f]{56}", fetched[0][1])


def test_published_file_is_known_by_its_own_hash_too(
    published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "trunk.pth", trunk_of(published))
    write(tmp_path / "heads.npz", heads_of(published))
    monkeypatch.setattr(module, "TRUNK_HASH", "0" * 64)
    with pytest.raises(WeightsError, match="not the published ones"):
        load_lpips_weights(tmp_path)
    monkeypatch.setattr(module, "TRUNK_FILE_HASH", module._file_hash(path))
    assert_equal(load_lpips_weights(tmp_path), published)


# ---------------------------------------------------------------- not found


def assert_ways_out(message: str) -> None:
    for way in ("TWOSTAGE_LPIPS_WEIGHTS", "option", "https://download.pytorch.org", "pip install lpips"):
        assert way in message


def test_nothing_found_names_the_three_ways_out() -> None:
    with pytest.raises(WeightsError, match="package lpips is not installed") as caught:
        load_lpips_weights()
    assert_ways_out(str(caught.value))


def test_no_network_names_the_three_ways_out(
    published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(tmp_path / "site", heads_of(published), monkeypatch)
    with pytest.raises(WeightsError, match=r"could not be fetched from .*no network in tests") as caught:
        load_lpips_weights()
    assert_ways_out(str(caught.value))


def test_package_without_its_file_is_named(
    published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(tmp_path / "site", heads_of(published), monkeypatch)
    (tmp_path / "site/lpips/weights/v0.1/alex.pth").unlink()
    with pytest.raises(WeightsError, match=r"alex\.pth does not exist"):
        load_lpips_weights()


def test_path_without_a_trunk_is_refused_and_nothing_is_fetched(published: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"features\.0\.weight is missing.*features\.10\.bias is missing"):
        load_lpips_weights(write(tmp_path / "heads.npz", heads_of(published)))


def test_folder_without_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(WeightsError, match=r"holds no \.npz, \.pth, \.safetensors file"):
        load_lpips_weights(tmp_path)


def test_same_tensor_in_two_files_is_refused(published: dict[str, Tensor], tmp_path: Path) -> None:
    write(tmp_path / "a.npz", published)
    write(tmp_path / "b.npz", heads_of(published))
    with pytest.raises(WeightsError, match=r"lin0\.weight is in two files.*a\.npz and b\.npz"):
        load_lpips_weights(tmp_path)


# ---------------------------------------------------------------- not usable


def test_all_problems_are_listed_at_once(published: dict[str, Tensor], tmp_path: Path) -> None:
    broken = dict(published)
    del broken["features.3.bias"]
    broken["features.0.weight"] = torch.zeros(64, 3, 11, 10)
    broken["features.6.bias"] = torch.zeros(384, dtype=torch.int32)
    broken["features.8.bias"] = torch.full((256,), float("nan"))
    broken["lin2.weight"] = -broken["lin2.weight"]
    path = write(tmp_path / "broken.npz", broken)
    for allow in (False, True):
        with pytest.raises(WeightsError) as caught:
            load_lpips_weights(path, allow_other_weights=allow)
        for problem in (
            "features.3.bias is missing",
            "features.0.weight is torch.float32 (64, 3, 11, 10); accepted: a floating dtype, (64, 3, 11, 11)",
            "features.6.bias is torch.int32 (384,)",
            "features.8.bias holds values that are not finite",
            "lin2.weight holds values below 0",
        ):
            assert problem in str(caught.value)


def test_own_weights_are_taken_where_that_is_said(tmp_path: Path) -> None:
    weights = random_weights(seed=5)
    path = write(tmp_path / "own.safetensors", weights)
    with pytest.raises(WeightsError, match="not the published ones"):
        load_lpips_weights(path)
    assert_equal(load_lpips_weights(path, allow_other_weights=True), weights)


def test_half_precision_copy_is_not_the_published_one(published: dict[str, Tensor], tmp_path: Path) -> None:
    path = write(tmp_path / "half.npz", {name: tensor.half() for name, tensor in published.items()})
    with pytest.raises(WeightsError, match=r"trunk in .*not the published ones"):
        load_lpips_weights(path)
    assert load_lpips_weights(path, allow_other_weights=True)["lin0.weight"].dtype == torch.float32


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_file_is_named(published: dict[str, Tensor], tmp_path: Path, suffix: str, share: float) -> None:
    path = write(tmp_path / f"cut{suffix}", published)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=rf"cut{re.escape(suffix)} cannot be read"):
        load_lpips_weights(path)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("container", ["torch.save", "plain pickle as .pth", "object array", "plain pickle as .npz"])
def test_nothing_but_tensors_is_unpickled(published: dict[str, Tensor], tmp_path: Path, container: str) -> None:
    trap = Trap(tmp_path / "sprung")
    path = tmp_path / ("trap.pth" if container in ("torch.save", "plain pickle as .pth") else "trap.npz")
    if container == "torch.save":
        torch.save({**published, "extra": trap}, path)
    elif container == "object array":
        array: Any = np.array([trap], dtype=object)
        np.savez(path, array)
    else:
        path.write_bytes(pickle.dumps(trap, protocol=2))
    with pytest.raises(WeightsError, match=r"trap\.(pth|npz) cannot be read") as caught:
        load_lpips_weights(path)
    assert not (tmp_path / "sprung").exists()
    assert "weights_only" not in str(caught.value), "no advice to unpickle it all the same"


def test_other_contents_are_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list; accepted: a mapping"):
        load_lpips_weights(tmp_path / "list.pth")
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(WeightsError, match="not a zip archive of arrays"):
        load_lpips_weights(tmp_path / "array.npz")
    (tmp_path / "weights.onnx").write_text("")
    with pytest.raises(WeightsError, match=r"suffix '\.onnx'; accepted: \.npz, \.pth, \.safetensors"):
        load_lpips_weights(tmp_path / "weights.onnx")
