"""Where the LPIPS weights come from: AlexNet's five convolutions (the trunk) and LPIPS's five linear heads.

Every tensor is checked: shape, finiteness, and a hash over the float32 values, so that each container
format of the published weights passes and nothing else does.
"""

import hashlib
import importlib.util
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from twostage.errors import WeightsError

ENVIRONMENT_VARIABLE = "TWOSTAGE_LPIPS_WEIGHTS"
TRUNK_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"

TRUNK_SHAPES: dict[str, tuple[int, ...]] = {
    "features.0.weight": (64, 3, 11, 11),
    "features.0.bias": (64,),
    "features.3.weight": (192, 64, 5, 5),
    "features.3.bias": (192,),
    "features.6.weight": (384, 192, 3, 3),
    "features.6.bias": (384,),
    "features.8.weight": (256, 384, 3, 3),
    "features.8.bias": (256,),
    "features.10.weight": (256, 256, 3, 3),
    "features.10.bias": (256,),
}
HEAD_SHAPES: dict[str, tuple[int, ...]] = {
    f"lin{index}.weight": (1, channels, 1, 1) for index, channels in enumerate((64, 192, 384, 256, 256))
}
HEAD_NAMES = tuple(HEAD_SHAPES)
TRUNK_HASH = "195266a4c8e96483085621ac3389a6c24f1dd0963c9ac0e001705d24ece83273"
HEADS_HASH = "582141aac49cde7813acaf20ef378ca3005a91f7c4a88005e4428ff9b28a40d0"
TRUNK_FILE_HASH = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
"""SHA-256 of the file that PyTorch publishes; its name carries the first eight digits."""

_SUFFIXES = (".npz", ".pth", ".safetensors")
_WAYS_OUT = (
    "Three ways out: (1) set "
    f"{ENVIRONMENT_VARIABLE} to a file or folder ({', '.join(_SUFFIXES)}) with AlexNet's features.* and LPIPS's lin*; "
    "(2) give such a file or folder by the option for the LPIPS weights; "
    f"(3) let the trunk be downloaded from {TRUNK_URL} and install the heads: pip install lpips==0.1.4"
)


def load_lpips_weights(location: Path | None = None, *, allow_other_weights: bool = False) -> dict[str, Tensor]:
    """Load and verify the weights of LPIPS (AlexNet, v0.1).

    The search ends at the first of: ``location``; the path in the environment variable TWOSTAGE_LPIPS_WEIGHTS;
    the published trunk by torch.hub (fetched once, then kept in its cache). A path is a file or a folder of
    .npz, .pth or .safetensors files. Heads that are not at the path are read from the installed package ``lpips``,
    which is not imported. Nothing is unpickled but tensors.

    Args:
        location: a file or a folder.
        allow_other_weights: accept a trunk and heads other than the published ones. Their shapes, finiteness and
            the heads' sign are still checked.

    Returns:
        float32 tensors on the CPU: ``features.{0,3,6,8,10}.{weight,bias}`` and ``lin{0..4}.weight``.

    Raises:
        WeightsError: not found, unreadable, of another shape, not finite, or not the published weights.
    """
    if location is None and os.environ.get(ENVIRONMENT_VARIABLE):
        location = Path(os.environ[ENVIRONMENT_VARIABLE])
    if location is None:
        found = _package_heads()  # before the trunk: a missing package should not cost a download
        found |= _published_trunk()
    else:
        found = _read_location(location)
        if not any(name in found for name in HEAD_SHAPES):
            found |= _package_heads()
    weights = _checked({name: stored.tensor for name, stored in found.items()})
    if not allow_other_weights:
        _require_published("trunk", weights, {name: found[name].path for name in TRUNK_SHAPES}, TRUNK_HASH)
        _require_published("heads", weights, {name: found[name].path for name in HEAD_SHAPES}, HEADS_HASH)
    return weights


def content_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and little-endian float32 bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


class _Stored(NamedTuple):
    tensor: Tensor
    path: Path


def _require_published(part: str, weights: Mapping[str, Tensor], origin: Mapping[str, Path], accepted: str) -> None:
    given = content_hash({name: weights[name] for name in origin})
    paths = sorted(set(origin.values()))
    # PyTorch's own file is published whatever its content hash.
    if given == accepted or (len(paths) == 1 and _file_hash(paths[0]) == TRUNK_FILE_HASH):
        return
    raise WeightsError(
        f"the LPIPS {part} in {', '.join(map(str, paths))} are not the published ones: "
        f"content hash {given}; accepted: {accepted}. {_WAYS_OUT}"
    )


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _checked(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    problems, weights = [], {}
    for name, shape in {**TRUNK_SHAPES, **HEAD_SHAPES}.items():
        if name not in found:
            problems.append(f"{name} is missing")
            continue
        tensor = found[name]
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            problems.append(f"{name} is {tensor.dtype} {tuple(tensor.shape)}; accepted: a floating dtype, {shape}")
            continue
        # A copy of its own: a tensor of a memory-mapped file would keep the whole file open.
        weights[name] = tensor.detach().to(torch.float32, copy=True).contiguous()
        if not bool(weights[name].isfinite().all()):
            problems.append(f"{name} holds values that are not finite")
        elif name in HEAD_SHAPES and bool((weights[name] < 0).any()):
            problems.append(f"{name} holds values below 0; accepted: heads of at least 0")
    if problems:
        raise WeightsError(f"the LPIPS weights are not usable: {'; '.join(problems)}. {_WAYS_OUT}")
    return weights


def _read_location(location: Path) -> dict[str, _Stored]:
    if location.is_dir():
        files = sorted(path for path in location.iterdir() if path.suffix in _SUFFIXES)
        if not files:
            raise WeightsError(f"{location} holds no {', '.join(_SUFFIXES)} file. {_WAYS_OUT}")
    elif location.is_file():
        files = [location]
    else:
        raise WeightsError(f"{location} does not exist. {_WAYS_OUT}")
    found: dict[str, _Stored] = {}
    for path in files:
        for name, stored in _read_file(path).items():
            if name in found:
                names = f"{found[name].path.name} and {path.name}"
                raise WeightsError(f"{name} is in two files of {location}, {names}; accepted: one")
            found[name] = stored
    return found


def _read_file(path: Path) -> dict[str, _Stored]:
    readers: dict[str, Callable[[Path], object]] = {".npz": _read_npz, ".pth": _read_pth, ".safetensors": load_file}
    if path.suffix not in readers:
        raise WeightsError(f"{path} has the suffix {path.suffix!r}; accepted: {', '.join(_SUFFIXES)}")
    try:
        content = readers[path.suffix](path)
    except pickle.UnpicklingError as error:
        # The text of torch and numpy advises to unpickle whatever is there.
        raise WeightsError(f"{path} cannot be read: it is damaged, or holds objects other than tensors") from error
    except (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    except (SafetensorError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return _wanted(path, content)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is not a zip archive of arrays")
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def _read_pth(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def _wanted(path: Path, content: object) -> dict[str, _Stored]:
    """The tensors that LPIPS needs, heads renamed from the names that the package ``lpips`` gives them."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}; accepted: a mapping of names to tensors")
    wanted: dict[str, _Stored] = {}
    for name, tensor in content.items():
        own_name = str(name).replace(".model.1.weight", ".weight")
        if isinstance(tensor, Tensor) and (own_name in TRUNK_SHAPES or own_name in HEAD_SHAPES):
            wanted[own_name] = _Stored(tensor, path)
    return wanted


def _package_heads() -> dict[str, _Stored]:
    # Importing lpips would import torchvision; its weights are a file that can be read without.
    specification = importlib.util.find_spec("lpips")
    if specification is None or specification.origin is None:
        raise WeightsError(f"the LPIPS heads were not found: the package lpips is not installed. {_WAYS_OUT}")
    path = Path(specification.origin).parent / "weights" / "v0.1" / "alex.pth"
    if not path.is_file():
        raise WeightsError(f"the LPIPS heads were not found: {path} does not exist. {_WAYS_OUT}")
    return _read_file(path)


def _published_trunk() -> dict[str, _Stored]:
    path = Path(torch.hub.get_dir()) / "checkpoints" / TRUNK_URL.rpartition("/")[2]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(TRUNK_URL, str(path), hash_prefix=TRUNK_FILE_HASH)
        except (OSError, HTTPException, RuntimeError) as error:
            raise WeightsError(
                f"the LPIPS trunk could not be fetched from {TRUNK_URL}: {error}. {_WAYS_OUT}"
            ) from error
    return _read_file(path)
