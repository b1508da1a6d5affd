"""Where training images are kept makes no difference to what is trained; and what each home refuses."""

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_data import QUICK, make_surface
from image_files import MAX_PIXELS, noise, png_16, write
from PIL import Image
from torch import Tensor
from training_fixtures import assert_equal_bits

from twostage import Config, DataConfig, Detector, ModelConfig, Progress, StageConfig
from twostage.cli import main
from twostage.config import DefectConfig, LossConfig, ScoringConfig
from twostage.data import find_samples
from twostage.data.homes import cache_folder, choose_home, estimated_bytes
from twostage.data.loading import load_image
from twostage.data.mapped import IMAGE, MappedImages, MappedPatches
from twostage.data.packing import into_one_piece, pack, to_unit_range
from twostage.data.patches import PatchStore, gather_patches
from twostage.data.samples import GOOD, Sample
from twostage.errors import ConfigError, DataError
from twostage.training_images import TrainingImages

CPU = torch.device("cpu")


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def make_root(root: Path) -> Path:
    """Images of several sizes, one of them of 16 bits."""
    for index in range(8):
        write(root / f"train/good/{index}.png", noise(index, 96 + 8 * (index % 3), 120) // 4)
    deep = np.random.default_rng(0).integers(0, 2**16, (100, 100, 1), dtype=np.uint16)
    png_16(root / "train/good/deep.png", deep)
    write(root / "test/good/0.png", noise(50, 100, 120) // 4)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("homes") / "surface")


def make_config(root: Path | None, **data: object) -> Config:
    return Config(
        data=replace(DataConfig(root=root, image_size=96, max_pixels=MAX_PIXELS), **data),  # type: ignore[arg-type]
        model=ModelConfig(patch_size=64, latent_channels=4),
        first_stage=StageConfig(1, LossConfig("aw-ssim"), defective=False),
        second_stage=StageConfig(1, LossConfig("ssim+l1"), defective=True),
        defects=DefectConfig(candidates=2),
        scoring=ScoringConfig(map="residual", lpips=False, smoothing=1.0),
        batch_size=8,
        device="cpu",
    )


@pytest.fixture(scope="module")
def shards(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "out"
    flags = ("--data.image-size=96", "--model.patch-size=64", "--images-per-shard=3")
    assert main(["shard", str(folder), f"--data.root={root}", *flags]) == 0
    return folder


def weights(config: Config, progress: Progress | None = None) -> dict[str, Tensor]:
    return dict(Detector.fit(config, progress=progress).model.state_dict())


@pytest.mark.parametrize("most", [100, 4])
def test_memory_and_cache_train_the_same_bits(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Also where defects are cut from some of the images only."""
    monkeypatch.setattr("twostage.training_images.most_sources", lambda bytes_of_image: most)
    in_memory, in_cache, again = Notes(), Notes(), Notes()
    expected = weights(make_config(root, home="memory"), in_memory)
    cached = make_config(root, home="cache", cache=tmp_path)
    assert_equal_bits(weights(cached, in_cache), expected)
    assert_equal_bits(weights(cached, again), expected)
    assert [note for note in in_memory.notes if "8 training images" in note and "in memory (of cpu" in note]
    assert [note for note in in_cache.notes if "8 training images" in note and f"({tmp_path}" in note]


def test_a_pool_of_all_images_draws_as_one_that_ranks_when_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(root, home="memory")
    images = TrainingImages.load(config, Progress())
    everything = images.sampler(config).pool.candidates_of(torch.arange(8))
    monkeypatch.setattr("twostage.training_images.most_sources", lambda bytes_of_image: 5)
    some = images.sampler(config).pool
    chosen = [index * 8 // 5 for index in range(5)]
    for target, candidates in enumerate(some.candidates_of(torch.arange(8)).tolist()):
        assert len(set(candidates)) == 2
        assert target not in [chosen[candidate] for candidate in candidates]
    assert not any(target in row for target, row in enumerate(everything.tolist()))


def test_shards_hold_every_image_once_and_any_tar_program_reads_them(root: Path, shards: Path) -> None:
    config = make_config(root, home="memory")
    expected = {str(sample.path): load_image(sample, config.data, "gray") for sample in find_samples(config.data).train}
    found = {}
    for file in sorted(shards.glob("*.tar")):
        with tarfile.open(file) as tar:
            members = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        with tarfile.open(file) as tar:
            for name in sorted(members):
                stream = tar.extractfile(name)
                assert stream is not None
                if name.endswith(".json"):
                    path = json.loads(stream.read())["path"]
                    pixels = tar.extractfile(name.replace(".json", ".npy"))
                    assert pixels is not None
                    found[path] = np.load(io.BytesIO(pixels.read()))
    assert found.keys() == expected.keys()
    assert all(torch.equal(torch.from_numpy(found[path]), image) for path, image in expected.items())


def test_training_from_shards_sees_their_images_and_resumes_exactly(root: Path, shards: Path, tmp_path: Path) -> None:
    config = make_config(None, shards=shards)
    images = TrainingImages.load(config, Progress())
    assert len(images.train) == 8
    assert len(images.validation) == 1
    by_name = {
        str(path): to_unit_range(load_image(Sample(path, GOOD), config.data, "gray"))
        for path in root.glob("train/good/*")
    }
    assert all(torch.equal(to_unit_range(images.train[index]), by_name[images.names[index]]) for index in range(8))
    store = images.store(config)
    lanes = store.samples_at(torch.arange(store.patches_per_epoch // 8 * 8), 0)
    assert len(set(lanes.tolist())) == store.patches_per_epoch // 8 * 8
    in_memory = PatchStore(list(images.train), 64, 0)
    assert torch.equal(store.patches(lanes, 3), in_memory.patches(lanes, 3))
    expected = weights(config)
    Detector.fit(replace(config, checkpoint_every=1), run=tmp_path / "run")
    newest = max((tmp_path / "run/checkpoints").glob("step-*"))
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    resumed = Detector.fit(config, run=tmp_path / "run", resume=True)
    assert_equal_bits(dict(resumed.model.state_dict()), expected)


def refused(shards: Path, **data: object) -> str:
    with pytest.raises(DataError) as raised:
        TrainingImages.load(make_config(None, shards=shards, **data), Progress())
    return str(raised.value)


def test_shards_that_do_not_fit_are_refused(shards: Path, tmp_path: Path) -> None:
    assert "image_size 96, data.image_size is 128" in refused(shards, image_size=128)
    assert "color 'gray', data.color is 'rgb'" in refused(shards, color="rgb")
    assert "no finished shards" in refused(tmp_path)
    copied = tmp_path / "cut"
    copied.mkdir()
    for file in shards.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    whole = (copied / "train-000001.tar").read_bytes()
    (copied / "train-000001.tar").write_bytes(whole[:-1])
    assert f"has {len(whole) - 1} bytes; accepted: {len(whole)}" in refused(copied)
    (copied / "shards.json").unlink()
    assert "no finished shards" in refused(copied)


def damaged(shards: Path, folder: Path, name: str, content: bytes) -> str:
    """What is said of shards one of whose files has another content, and whose description knows its size."""
    shutil.copytree(shards, folder)
    (folder / name).write_bytes(content)
    if name != "shards.json":
        description = json.loads((folder / "shards.json").read_text())
        description["bytes"][name] = len(content)
        (folder / "shards.json").write_text(json.dumps(description))
    return refused(folder)


def test_damage_to_what_describes_shards_is_said(shards: Path, tmp_path: Path) -> None:
    for number, content in enumerate((b"[]", b'{"format_version": 1, "bytes": 7}')):
        message = damaged(shards, tmp_path / f"description {number}", "shards.json", content)
        assert re.search(r"shards\.json is damaged: (format_version, )?color, .*missing", message)
    index = (shards / "index.npy").read_bytes()
    with io.BytesIO() as other:
        np.save(other, np.zeros(8))
        assert "holds float64 (8,); accepted: a row for each of 8 images" in damaged(
            shards, tmp_path / "other", "index.npy", other.getvalue()
        )
    assert "index.npy is damaged: " in damaged(shards, tmp_path / "no numpy", "index.npy", b"x" * len(index))
    assert "validation.npy is damaged: " in damaged(shards, tmp_path / "empty", "validation.npy", b"")
    (tmp_path / "empty/index.npy").write_bytes(index[:-1])
    assert f"index.npy has {len(index) - 1} bytes; accepted: {len(index)}" in refused(tmp_path / "empty")


def test_shards_replace_only_shards(
    root: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (f"--data.root={root}", "--data.image-size=96", "--model.patch-size=64")
    assert main(["shard", str(shards), *flags]) == 2
    assert "--overwrite" in capsys.readouterr().err
    (tmp_path / "thesis.txt").write_text("do not delete")
    assert main(["shard", str(tmp_path), *flags, "--overwrite"]) == 2
    assert (tmp_path / "thesis.txt").exists()


def test_a_test_image_that_was_trained_on_is_found_in_every_home(root: Path, tmp_path: Path) -> None:
    copy = make_root(tmp_path / "leaking")
    (copy / "test/good/copy.png").write_bytes((copy / "train/good/3.png").read_bytes())
    for home in ("memory", "cache"):
        with pytest.raises(DataError, match=r"copy\.png: is a test image with the pixels of .*training image"):
            TrainingImages.load(make_config(copy, home=home, cache=tmp_path / "cache"), Progress())


def test_every_problem_is_listed_in_every_home(tmp_path: Path) -> None:
    root = make_root(tmp_path / "broken")
    (root / "train/good/2.png").write_bytes(b"no image at all")
    (root / "train/good/5.png").write_bytes(b"")
    (root / "ground_truth/hole").mkdir(parents=True)
    for home in ("memory", "cache"):
        for color in ("auto", "gray"):
            config = make_config(root, home=home, cache=tmp_path / "cache", color=color)
            with pytest.raises(DataError) as raised:
                TrainingImages.load(config, Progress())
            assert "2.png" in str(raised.value)
            assert "5.png" in str(raised.value)


def test_images_smaller_than_a_patch_are_named_in_every_home(tmp_path: Path) -> None:
    root = make_root(tmp_path / "small")
    write(root / "train/good/tiny.png", noise(9, 40, 90))
    for home in ("memory", "cache"):
        config = make_config(root, home=home, cache=tmp_path / "cache", image_size=None)
        with pytest.raises(DataError, match=r"tiny\.png"):
            TrainingImages.load(config, Progress())


def test_the_home_is_memory_where_the_images_fit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(root=root, image_size=96)
    samples = find_samples(config).train
    held = sum(image.nbytes for image in into_one_piece([load_image(sample, config, "gray") for sample in samples]))
    estimate = estimated_bytes(config, samples)
    assert abs(estimate - held) < 0.02 * held
    for free, processes, home in ((10 * held, 1, "memory"), (2 * held, 1, "cache"), (10 * held, 5, "cache")):
        monkeypatch.setattr("twostage.data.homes.free_memory", lambda device, free=free: free)
        assert choose_home(config, samples, CPU, processes) == home
    assert choose_home(replace(config, home="memory"), samples, CPU, 5) == "memory"


def test_one_coloured_or_deep_image_makes_all_of_them_so(tmp_path: Path) -> None:
    config = DataConfig(root=tmp_path, image_size=None)
    for index in range(5):
        write(tmp_path / f"train/good/{index}.png", noise(index, 64, 64))
    plain = estimated_bytes(config, find_samples(config).train)
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tmp_path / "train/good/6.png")
    assert estimated_bytes(config, find_samples(config).train) == 3 * plain * 6 / 5
    png_16(tmp_path / "train/good/7.png", np.zeros((64, 64, 1), dtype=np.uint16))
    assert estimated_bytes(config, find_samples(config).train) == 12 * plain * 7 / 5


def test_a_cache_is_the_same_however_its_folder_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    held = set()
    for named in (Path(root.name), root, root / ".." / root.name):
        TrainingImages.load(make_config(named, home="cache", cache=tmp_path / "cache"), Progress())
        held.add(tuple((path, path.stat().st_mtime_ns) for path in sorted((tmp_path / "cache").rglob("pixels*"))))
    assert len(held) == 1
    assert len(held.pop()) == 1


def test_caches_of_other_settings_lie_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = DataConfig(root=tmp_path / "a")
    others = (replace(config, image_size=64), replace(config, root=tmp_path / "b"))
    folders = {cache_folder(config, "gray"), cache_folder(config, "rgb"), *(cache_folder(c, "gray") for c in others)}
    assert len(folders) == 4
    assert all(folder.is_relative_to(tmp_path / "twostage") for folder in folders)
    assert cache_folder(replace(config, cache=tmp_path / "own"), "gray").is_relative_to(tmp_path / "own")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DataConfig(home="shards"), "data.shards is None"),
        (lambda: DataConfig(home="cache", shards=Path("x")), "data.home is 'cache'"),
    ],
)
def test_homes_that_contradict_themselves_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gather_cuts_what_slices_cut(channels: int) -> None:
    """The gather is what a GPU uses; here it runs on the CPU."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((32, 32), (40, 57), (33, 90))
    images = [torch.randint(0, 256, (channels, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    store = PatchStore(images, 32, 3)
    samples = torch.arange(store.patches_per_epoch)
    for epoch in range(20):
        found = gather_patches(*pack(images), store.places(samples, epoch), channels, 32)
        assert torch.equal(found, store.patches(samples, epoch))


def test_batches_read_ahead_are_those_read_at_once(tmp_path: Path) -> None:
    pixels = noise(0, 40, 50 * 6).reshape(-1)
    (tmp_path / "raw").write_bytes(pixels.tobytes())
    table = np.zeros(6, dtype=IMAGE)
    table["offset"], table["height"], table["width"], table["itemsize"] = np.arange(6) * 2000, 40, 50, 1
    images = MappedImages([tmp_path / "raw"], table, 1)
    ahead, at_once = (MappedPatches(images, 32, 0, CPU) for _ in range(2))
    batches = [torch.arange(first, first + 8) for first in (0, 8, 16)]
    for batch in batches:
        ahead.prepare(batch, 1)
        ahead.prepare(batch, 1)
    for batch in reversed(batches):
        assert torch.equal(ahead.patches(batch, 1), at_once.patches(batch, 1))
    assert not ahead._waiting


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(100))
    table = np.zeros(1, dtype=IMAGE)
    table["height"], table["width"], table["itemsize"] = 40, 50, 1
    with pytest.raises(DataError, match="raw cannot be read at byte 0"):
        MappedImages([tmp_path / "raw"], table, 1)[0]


def test_the_command_line_trains_from_shards_and_tests_on_the_folder(tmp_path: Path) -> None:
    surface = make_surface(tmp_path / "stripes")
    sizes = ("--data.image-size=96", "--model.patch-size=64")
    assert main(["shard", str(tmp_path / "out"), f"--data.root={surface}", *sizes]) == 0
    flags = (f"--data.root={surface}", f"--data.shards={tmp_path / 'out'}")
    assert main(["train", str(tmp_path / "run"), *flags, *QUICK]) == 0
    values = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert len(values["metrics"]["images"]) == 4
