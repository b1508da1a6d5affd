"""What the distribution promises: a quiet import, one version, a complete source archive, nothing dragged in."""

import email.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import twostage
import twostage_kernels

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "twostage", ROOT / "kernels" / "twostage_kernels")
EXTRAS = ("train", "demo", "triton", "test", "bench", "dev")

# Imports a module in a process that has torch already, and reports what that did beside defining names.
IMPORT_AND_REPORT = """
import json, sys, torch
module, report = sys.argv[1:]
before = set(sys.modules)
effects = []
def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    cached = event == "open" and "__pycache__" in str(arguments[0])
    if (writes and not cached) or event in ("socket.connect", "subprocess.Popen", "os.system", "os.exec"):
        effects.append([event, repr(arguments)])
sys.addaudithook(watch)
__import__(module)
found = {"modules": sorted(set(sys.modules) - before), "effects": list(effects), "cuda": torch.cuda.is_initialized()}
with open(report, "w") as file:
    json.dump(found, file)
"""

# Builds with torch unavailable, as in an isolated build environment.
BUILD = """
import sys
sys.modules["torch"] = None
from setuptools import build_meta
getattr(build_meta, sys.argv[1])(sys.argv[2])
"""


def run_python(script: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in ``folder``, with both packages of this checkout importable, installed or not."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={
            "TWOSTAGE_CUDA_ARCHITECTURES": "90",  # one, for the time it takes
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(package.parent) for package in PACKAGES),
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("twostage_kernels", {"twostage", "triton", "torchvision", "PIL", "matplotlib", "scipy", "lpips"}),
        ("twostage", {"triton", "torchvision", "lpips"}),
    ],
)
def test_import_has_no_effects(module: str, unwanted: set[str], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    process = run_python(IMPORT_AND_REPORT, module, str(report), folder=tmp_path)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    found = json.loads(report.read_text())
    assert not unwanted & {name.partition(".")[0] for name in found["modules"]}
    assert found["effects"] == []
    assert found["cuda"] is False


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel built from nothing but it."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools 77 or later is not installed")
    folder = tmp_path_factory.mktemp("build")
    checkout = folder / "checkout"
    skipped = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    for name in ("csrc", "kernels", "tests", "benchmarks", "twostage"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, checkout / name, ignore=skipped)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, checkout)

    process = run_python(BUILD, "build_sdist", str(folder), folder=checkout)
    assert process.returncode == 0, process.stderr
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    process = run_python(BUILD, "build_wheel", str(folder), folder=unpacked)
    assert process.returncode == 0, process.stderr
    (wheel,) = folder.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def metadata(archives: tuple[Path, Path]) -> Message:
    with zipfile.ZipFile(archives[1]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(wheel.read(name).decode())


def requirements(metadata: Message, extra: str, python: str = "3.12") -> list[Requirement]:
    """What one extra asks for, the extras that it names in turn included; "" asks for the base alone."""
    found = []
    for text in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra, "python_version": python}):
            continue
        if requirement.name == "twostage":
            for inner in requirement.extras:
                found += requirements(metadata, inner, python)
        else:
            found.append(requirement)
    return found


def test_wheel_holds_both_packages_whole_and_nothing_else(archives: tuple[Path, Path]) -> None:
    expected = {
        str(path.relative_to(package.parent))
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and path.suffix in {".py", ".typed", ".html", ".css", ".js"}
    }
    with zipfile.ZipFile(archives[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith(".so")}
    assert names == expected
    assert {"twostage/py.typed", "twostage_kernels/py.typed"} <= names


def test_license_is_in_both_archives(archives: tuple[Path, Path], metadata: Message) -> None:
    source, wheel = archives
    text = (ROOT / "LICENSE").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/LICENSE"))
        assert archive.read(name) == text
    with tarfile.open(source) as archive:
        (member,) = (member for member in archive.getmembers() if member.name.endswith("/LICENSE"))
        file = archive.extractfile(member)
        assert file is not None
        assert file.read() == text
    assert metadata["License-Expression"] == "MIT"


def test_versions_agree(metadata: Message) -> None:
    assert twostage_kernels.__version__ == twostage.__version__ == metadata["Version"]


def test_installed_version_agrees(metadata: Message) -> None:
    try:
        installed = version("twostage")
    except PackageNotFoundError:
        pytest.skip("twostage is not installed here, only on the path")
    assert installed == metadata["Version"]


def test_base_needs_torch_and_numpy_alone(metadata: Message) -> None:
    assert {requirement.name for requirement in requirements(metadata, "")} == {"torch", "numpy"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_extra_never_asks_for_torchvision(metadata: Message, extra: str) -> None:
    names = {requirement.name for requirement in requirements(metadata, extra)}
    assert not names & {"torchvision", "lpips"}, "lpips would install torchvision"


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_constraints_pin_every_requirement(metadata: Message, python: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned: dict[str, str] = {}
    for pin in pins:
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            if pin.name == "triton":  # a CUDA build of torch brings the one version that it works with
                continue
            (specifier,) = pin.specifier
            assert specifier.operator == "==", pin
            assert pin.name not in pinned, f"{pin.name} is pinned twice for Python {python}"
            pinned[pin.name] = specifier.version
    for extra in ("", *EXTRAS, "lpips"):
        for requirement in requirements(metadata, extra, python):
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if name == "triton":
                continue
            assert requirement.specifier.contains(pinned[name]), f"{requirement} of [{extra}] against {pinned[name]}"
    assert "torchvision" not in pinned


def test_command_line_entry_point(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
        assert wheel.read(name).decode().split() == ["[console_scripts]", "twostage", "=", "twostage.cli:main"]


def test_command_line_lists_its_commands(tmp_path: Path) -> None:
    pytest.importorskip("tyro", reason="tyro, of the [train] extra, is not installed")
    process = run_python("import sys; from twostage.cli import main; sys.exit(main())", "--help", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    for command in ("demo", "train", "evaluate", "predict", "report", "check-data"):
        assert command in process.stdout
