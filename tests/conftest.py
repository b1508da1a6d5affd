"""What every test file shares: hypothesis profiles, and where real photographs and weights are found."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from detector_fixtures import Trained

    from twostage import Detector

settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def _path_from_environment(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: no {what} here")
    path = Path(value)
    if not path.exists():
        pytest.fail(f"{variable} is {value!r}, which does not exist")
    return path


def _data_set(name: str) -> Path:
    folder = _path_from_environment("TWOSTAGE_TEST_DATA", "real photographs") / name
    if not folder.is_dir():
        pytest.skip(f"TWOSTAGE_TEST_DATA holds no {name}")
    return folder


@pytest.fixture(scope="session")
def magnetic_tile() -> Path:
    """Real photographs in MVTec layout with pixel masks; grey, every image of its own size."""
    return _data_set("magnetic_tile")


@pytest.fixture(scope="session")
def kolektor_sdd() -> Path:
    """Real photographs in MVTec layout with pixel masks; grey, 256x640."""
    return _data_set("kolektor_sdd")


@pytest.fixture(scope="session")
def mvtec_leather_subset() -> Path:
    """A few images of MVTec AD's leather, in its exact layout."""
    return _data_set("mvtec_leather_subset")


@pytest.fixture(scope="session")
def dtd_sources() -> Path:
    """Textures to cut defects from."""
    return _data_set("dtd_sources")


@pytest.fixture(scope="session")
def lpips_reference() -> Path:
    """Image pairs with published LPIPS values."""
    return _data_set("lpips_reference")


@pytest.fixture(scope="session")
def lpips_weights() -> Path:
    """The real LPIPS weights: a file or a folder."""
    return _path_from_environment("TWOSTAGE_LPIPS_WEIGHTS", "LPIPS weights")


@pytest.fixture(scope="session")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few small images, some of them with bright squares."""
    from detector_fixtures import make_root

    return make_root(tmp_path_factory.mktemp("spots"))


@pytest.fixture(scope="session")
def trained(spots: Path, tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """A detector trained on ``spots``, once for all tests."""
    from detector_fixtures import Recorder, Trained, make_config

    from twostage import Detector

    run, recorder = tmp_path_factory.mktemp("run"), Recorder()
    return Trained(Detector.fit(make_config(spots), run=run, progress=recorder), run, recorder)


@pytest.fixture(scope="session")
def detector(trained: "Trained") -> "Detector":
    return trained.detector
