"""The detector from end to end: fit, predict, evaluate, save, load, and what each refuses."""

import copy
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import noise, write
from lpips_oracles import random_weights
from sklearn.metrics import roc_auc_score
from torch import Tensor

from twostage import Config, DataConfig, Detector, ModelConfig, Prediction, Progress, ScoringConfig, StageConfig
from twostage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from twostage.config import LossConfig
from twostage.configfile import load_config
from twostage.data import Sample, find_samples, read_image, read_mask
from twostage.detector import _of_one_shape
from twostage.errors import CheckpointError, ConfigError, DataError, NonFiniteLossError, OutputError, WeightsError
from twostage.history import read_history
from twostage.lpips import LPIPS
from twostage.scoring import resize_map
from twostage.stopping import TrainingInterrupted

SCORING = ScoringConfig(map="residual", lpips=False, smoothing=1.0)


def make_config(root: Path) -> Config:
    return Config(
        data=DataConfig(root=root, image_size=96, validation_fraction=0.34),
        model=ModelConfig(patch_size=64, latent_channels=4),
        first_stage=StageConfig(1, LossConfig("aw-ssim"), defective=False),
        second_stage=StageConfig(1, LossConfig("ssim+l1"), defective=True),
        scoring=SCORING,
        batch_size=8,
        checkpoint_every=1,
        device="cpu",
    )


def make_root(root: Path, *, train: int = 6) -> Path:
    """Gray images of 100x120 pixels; two have a bright square, which its mask shows."""
    for index in range(train):
        write(root / f"train/good/{index}.png", noise(index, 100, 120) // 4)
    for index in range(3):
        write(root / f"test/good/{index}.png", noise(50 + index, 100, 120) // 4)
    for index in range(2):
        image, mask = noise(60 + index, 100, 120) // 4, np.zeros((100, 120), dtype=np.uint8)
        image[20:50, 30 + index : 60], mask[20:50, 30 + index : 60] = 250, 255
        write(root / f"test/spot/{index}.png", image)
        write(root / f"ground_truth/spot/{index}_mask.png", mask)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("data"))


class Recorder(Progress):
    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int]] = []
        self.notes: list[str] = []

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.updates.append((task, done, total))

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path, Recorder]:
    run, recorder = tmp_path_factory.mktemp("run"), Recorder()
    return Detector.fit(make_config(root), run=run, progress=recorder), run, recorder


@pytest.fixture(scope="module")
def detector(trained: tuple[Detector, Path, Recorder]) -> Detector:
    return trained[0]


def assert_same_prediction(found: Prediction, accepted: Prediction) -> None:
    assert (found.score, found.defective) == (accepted.score, accepted.defective)
    for name in ("image", "reconstruction", "residual", "score_map"):
        assert torch.equal(getattr(found, name), getattr(accepted, name)), name


def assert_same_weights(found: Detector, accepted: Detector) -> None:
    state = accepted.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.model.state_dict().items())


def image(height: int = 96, width: int = 96, channels: int = 1) -> Tensor:
    return torch.from_numpy(noise(77, height, width, channels)).permute(2, 0, 1).contiguous()


# ---------------------------------------------------------------- fit


def test_a_run_leaves_its_configuration_history_and_checkpoints(trained: tuple[Detector, Path, Recorder]) -> None:
    detector, run, _ = trained
    # 4 training images of 96x115 pixels, 4 patches each, 8 in a step: 2 steps in an epoch.
    assert detector.steps == 4
    assert load_config(run / "config.toml") == detector.config
    assert [(row["step"], row["stage"]) for row in read_history(run / "history.jsonl")] == [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 1),
    ]
    assert load_checkpoint(run / "checkpoints").step == 4


def test_progress_tells_every_part_of_the_work(trained: tuple[Detector, Path, Recorder]) -> None:
    updates = trained[2].updates
    assert list(dict.fromkeys(task for task, _, _ in updates)) == [
        "checking images",
        "loading images",
        "training",
        "calibrating",
    ]
    for task, total in (("checking images", 11), ("loading images", 6), ("training", 4), ("calibrating", 2)):
        assert [update[1:] for update in updates if update[0] == task] == [
            (done, total) for done in range(1, total + 1)
        ]


def test_the_same_seed_gives_the_same_detector_and_another_does_not(root: Path, detector: Detector) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = Detector.fit(make_config(root))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(again, detector)
    assert again.calibration == detector.calibration
    other = Detector.fit(replace(make_config(root), seed=1))
    assert not torch.equal(other.model.to_latent.weight, detector.model.to_latent.weight)


def test_colour_images_are_learnt_in_colour(tmp_path: Path) -> None:
    for index in range(4):
        write(tmp_path / f"train/good/{index}.png", noise(index, 64, 64, 3))
    config = make_config(tmp_path)
    config = replace(
        config, data=replace(config.data, image_size=64), second_stage=replace(config.second_stage, epochs=0)
    )
    detector = Detector.fit(config)
    assert (detector.color, detector.model.channels) == ("rgb", 3)
    assert detector.predict(image(64, 70, 3)).reconstruction.shape == (3, 64, 70)


def test_all_problems_of_the_data_are_listed_before_any_training(tmp_path: Path) -> None:
    make_root(tmp_path / "data")
    (tmp_path / "data/train/good/bad.png").write_bytes(b"no image")
    (tmp_path / "data/ground_truth/spot/1_mask.png").unlink()
    recorder = Recorder()
    with pytest.raises(DataError, match="2 problems") as raised:
        Detector.fit(make_config(tmp_path / "data"), run=tmp_path / "run", progress=recorder)
    assert "bad.png" in str(raised.value)
    assert "has no mask" in str(raised.value)
    assert {task for task, _, _ in recorder.updates} == {"checking images"}
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_is_not_replaced_by_one_that_cannot_train(
    tmp_path: Path, root: Path, trained: tuple[Detector, Path, Recorder]
) -> None:
    Detector.fit(
        replace(make_config(root), second_stage=replace(make_config(root).second_stage, epochs=0)), run=tmp_path
    )
    with pytest.raises(DataError, match="no such folder"):
        Detector.fit(make_config(tmp_path / "missing"), run=tmp_path, overwrite=True)
    assert load_checkpoint(tmp_path / "checkpoints").step == 2
    Detector.fit(make_config(root), run=tmp_path, overwrite=True)
    assert load_checkpoint(tmp_path / "checkpoints").step == 4
    assert len(read_history(tmp_path / "history.jsonl")) == 4


def test_one_training_image_cannot_be_its_own_source(tmp_path: Path) -> None:
    make_root(tmp_path, train=2)
    with pytest.raises(DataError, match=r"the pool of defect sources holds 1 image\(s\)"):
        Detector.fit(make_config(tmp_path))


def test_missing_lpips_weights_stop_it_at_once(root: Path, tmp_path: Path) -> None:
    config = replace(make_config(root), scoring=ScoringConfig(), lpips_weights=tmp_path / "missing")
    with pytest.raises(WeightsError, match="missing"):
        Detector.fit(config, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_here_stops_it_at_once(root: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'cuda:99'"):
        Detector.fit(replace(make_config(root), device="cuda:99"))


def test_a_run_is_not_replaced_unasked(trained: tuple[Detector, Path, Recorder]) -> None:
    detector, run, _ = trained
    recorder = Recorder()
    with pytest.raises(OutputError, match="already holds a run"):
        Detector.fit(detector.config, run=run, progress=recorder)
    assert recorder.updates == []


def test_a_diverging_training_stops_with_the_last_checkpoint_intact(root: Path, tmp_path: Path) -> None:
    config = make_config(root)
    config = replace(config, first_stage=replace(config.first_stage, epochs=3, learning_rate=1e37))
    with pytest.raises(NonFiniteLossError, match=r"at step 1, sigma .*train.good.\d\.png"):
        Detector.fit(config, run=tmp_path)
    assert load_checkpoint(tmp_path / "checkpoints").step == 1


# ---------------------------------------------------------------- resume


class Interrupting(Recorder):
    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        super().update(task, done, total, detail)
        if (task, done) == ("training", 3):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_run_resumes_to_the_same_detector(root: Path, tmp_path: Path, detector: Detector) -> None:
    with pytest.raises(TrainingInterrupted, match="after step 3 of 4"):
        Detector.fit(make_config(root), run=tmp_path, progress=Interrupting())
    # What does not change the result may change.
    config = replace(make_config(root), checkpoint_every=7)
    recorder = Recorder()
    resumed = Detector.fit(config, run=tmp_path, resume=True, progress=recorder)
    assert "resuming at step 3 of 4" in recorder.notes
    assert_same_weights(resumed, detector)
    assert resumed.calibration == detector.calibration
    assert [row["step"] for row in read_history(tmp_path / "history.jsonl")] == [0, 1, 2, 3]
    assert load_config(tmp_path / "config.toml") == config


def test_resuming_names_the_setting_that_changed(root: Path, trained: tuple[Detector, Path, Recorder]) -> None:
    config = make_config(root)
    changed = replace(config, second_stage=replace(config.second_stage, learning_rate=1e-3))
    with pytest.raises(CheckpointError, match=r"second_stage\.learning_rate was 0\.0002, is 0\.001\. Accepted"):
        Detector.fit(changed, run=trained[1], resume=True)
    assert load_config(trained[1] / "config.toml") == config


def test_resuming_passes_over_a_damaged_checkpoint(root: Path, tmp_path: Path, detector: Detector) -> None:
    Detector.fit(make_config(root), run=tmp_path)
    flip_a_byte(tmp_path / "checkpoints/step-000000004/tensors.safetensors")
    recorder = Recorder()
    resumed = Detector.fit(make_config(root), run=tmp_path, resume=True, progress=recorder)
    assert any("passed over a damaged checkpoint" in note for note in recorder.notes)
    assert_same_weights(resumed, detector)
    for step in (3, 4):
        flip_a_byte(tmp_path / f"checkpoints/step-00000000{step}/state.json")
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        Detector.fit(make_config(root), run=tmp_path, resume=True)


def test_there_must_be_a_run_to_resume(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no run"):
        Detector.fit(make_config(root), run=tmp_path / "missing", resume=True)
    with pytest.raises(OutputError, match="resume is True and run is None"):
        Detector.fit(make_config(root), resume=True)


# ---------------------------------------------------------------- predict


@pytest.mark.parametrize(
    ("height", "width", "scored"),
    [(96, 96, (96, 96)), (64, 200, (96, 300)), (301, 97, (298, 96)), (100, 120, (96, 115))],
)
def test_images_of_any_size_are_scored_at_the_configured_one(
    detector: Detector, height: int, width: int, scored: tuple[int, int]
) -> None:
    found = detector.predict(image(height, width))
    assert found.image.shape == found.reconstruction.shape == (1, *scored)
    assert found.residual.shape == found.score_map.shape == scored
    torch.testing.assert_close(found.residual, (found.image - found.reconstruction).abs()[0])
    assert found.score == pytest.approx(
        float(found.score_map.flatten().sort().values[-round(0.001 * found.score_map.numel()) :].mean())
    )
    assert found.defective == (found.score > detector.calibration.threshold)


def test_a_file_and_its_pixels_give_the_same(detector: Detector, root: Path) -> None:
    path = root / "test/spot/0.png"
    accepted = detector.predict(read_image(path, color="gray", max_pixels=10**6))
    assert_same_prediction(detector.predict(path), accepted)


def test_bytes_and_floats_give_the_same(detector: Detector) -> None:
    pixels = image()
    assert_same_prediction(detector.predict(pixels.float() / 255), detector.predict(pixels))


def test_a_colour_file_is_read_as_the_detector_sees(detector: Detector, tmp_path: Path) -> None:
    write(tmp_path / "colour.png", noise(0, 96, 96, 3))
    assert detector.predict(tmp_path / "colour.png").image.shape == (1, 96, 96)


def changed(detector: Detector, **attributes: object) -> Detector:
    """The detector with some attributes replaced."""
    other = copy.copy(detector)
    vars(other).update(attributes)
    return other


def test_what_scores_above_the_threshold_is_defective(detector: Detector) -> None:
    score = detector.predict(image()).score
    for threshold, defective in ((score, False), (np.nextafter(score, 0), True), (score + 1, False)):
        calibration = replace(detector.calibration, threshold=float(threshold))
        found = changed(detector, calibration=calibration).predict(image())
        assert (found.score, found.defective) == (score, defective)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(3, 96, 96), r"image has shape \(3, 96, 96\); accepted: \[1, H, W\]"),
        (torch.zeros(96, 96), r"image has shape \(96, 96\); accepted: \[1, H, W\]"),
        (torch.zeros(1, 0, 96), r"image has shape \(1, 0, 96\); accepted: \[1, H, W\]"),
        (
            torch.full((1, 96, 96), float("nan")),
            "values from nan to nan; accepted: uint8, or floating point from 0 to 1",
        ),
        (torch.full((1, 96, 96), 1.5), "holds values from 1.5 to 1.5; accepted: uint8"),
        (torch.full((1, 96, 96), -0.1), "holds values from -0.1 to -0.1"),
        (torch.zeros(1, 96, 96, dtype=torch.int64), "image is torch.int64; accepted: uint8"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(detector: Detector, pixels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        detector.predict(pixels)


def test_an_image_smaller_than_a_patch_is_refused(detector: Detector) -> None:
    config = replace(detector.config, data=replace(detector.config.data, image_size=None))
    unscaled = changed(detector, config=config)
    assert unscaled.predict(image(64, 64)).score_map.shape == (64, 64)
    with pytest.raises(DataError, match="image is 63x90 pixels; accepted: at least 64x64"):
        unscaled.predict(image(63, 90))


def test_a_file_that_is_no_image_is_refused(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(DataError, match=r"x\.png"):
        detector.predict(tmp_path / "x.png")


# ---------------------------------------------------------------- evaluate


def test_figures_are_those_of_the_predictions(detector: Detector, root: Path) -> None:
    samples = find_samples(detector.config.data).test
    seen: list[tuple[Sample, Prediction, Tensor | None]] = []
    recorder = Recorder()
    found = detector.evaluate(samples, on_prediction=lambda *arguments: seen.append(arguments), progress=recorder)
    assert [sample for sample, _, _ in seen] == list(samples)
    assert recorder.updates == [("evaluating", done, 5) for done in range(1, 6)]
    scores = {}
    for sample, prediction, mask in seen:
        assert_same_prediction(prediction, detector.predict(sample.path))
        assert (mask is None) == (sample.mask is None)
        if mask is not None and sample.mask is not None:
            assert torch.equal(mask, read_mask(sample.mask, max_pixels=10**6))
        scores[f"{sample.kind}/{sample.path.name}"] = prediction.score
    assert {image_score.name: image_score.score for image_score in found.images} == scores
    truth = [sample.kind != "good" for sample in samples]
    accepted = roc_auc_score(truth, [prediction.score for _, prediction, _ in seen])
    assert found.overall.image_auroc == pytest.approx(accepted)
    assert found.by_kind.keys() == {"spot"}
    # Pixels count at the resolution of the files.
    maps = [resize_map(prediction.score_map, (100, 120)).flatten() for _, prediction, _ in seen]
    masks = [torch.zeros(12_000) if mask is None else mask.flatten() for _, _, mask in seen]
    accepted = roc_auc_score(torch.cat(masks).numpy(), torch.cat(maps).numpy())
    assert found.overall.pixel_auroc == pytest.approx(accepted, abs=1e-12)


def test_a_mask_of_another_size_is_refused_by_name(detector: Detector, tmp_path: Path) -> None:
    make_root(tmp_path)
    mask = write(tmp_path / "ground_truth/spot/0_mask.png", np.full((10, 10), 255, dtype=np.uint8))
    with pytest.raises(DataError, match=r"spot/0\.png"):
        detector.evaluate([Sample(tmp_path / "test/spot/0.png", "spot", mask)])


@pytest.mark.parametrize("broken", ["test/spot/0.png", "ground_truth/spot/0_mask.png"])
def test_a_file_that_cannot_be_read_is_refused_by_name(detector: Detector, tmp_path: Path, broken: str) -> None:
    make_root(tmp_path)
    (tmp_path / broken).write_text("no image")
    sample = Sample(tmp_path / "test/spot/0.png", "spot", tmp_path / "ground_truth/spot/0_mask.png")
    with pytest.raises(DataError, match=broken):
        detector.evaluate([sample])


def test_an_image_that_is_too_small_is_named(detector: Detector, tmp_path: Path) -> None:
    config = replace(detector.config, data=replace(detector.config.data, image_size=None))
    path = write(tmp_path / "small.png", noise(0, 20, 90))
    with pytest.raises(DataError, match=r"small\.png is 20x90 pixels; accepted: at least 64x64"):
        changed(detector, config=config).evaluate([Sample(path, "good")])


# ---------------------------------------------------------------- save and load


@pytest.fixture
def saved(detector: Detector, tmp_path: Path) -> Path:
    return detector.save(tmp_path / "detector")


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_loaded_detector_says_the_same(detector: Detector, saved: Path) -> None:
    loaded = Detector.load(saved, device="cpu")
    assert loaded.config == detector.config
    assert loaded.calibration == detector.calibration
    assert (loaded.color, loaded.steps) == (detector.color, detector.steps)
    for size in ((96, 96), (150, 111)):
        assert_same_prediction(loaded.predict(image(*size)), detector.predict(image(*size)))


def test_saving_again_replaces(detector: Detector, saved: Path) -> None:
    assert detector.save(saved) == saved
    assert len(list(saved.glob("step-*"))) == 1
    Detector.load(saved, device="cpu")


def test_a_detector_with_lpips_maps_says_the_same(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights()
    config = replace(make_config(root), scoring=ScoringConfig(map="features", smoothing=0.0))
    config = replace(config, second_stage=replace(config.second_stage, epochs=0))
    detector = Detector.fit(config, lpips=LPIPS(weights))
    assert detector.calibration.needs_lpips
    accepted = detector.predict(image())
    assert not torch.equal(accepted.score_map, accepted.residual)
    monkeypatch.setattr("twostage.detector.load_lpips_weights", lambda location: weights)
    assert_same_prediction(Detector.load(detector.save(tmp_path), device="cpu").predict(image()), accepted)
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="missing"):
        Detector.load(tmp_path, lpips_weights=tmp_path / "missing", device="cpu")


def test_a_detector_cannot_be_saved_into_a_file(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file"):
        detector.save(tmp_path / "file")


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_one_flipped_byte_is_noticed(saved: Path, name: str) -> None:
    (folder,) = saved.glob("step-*")
    flip_a_byte(folder / name)
    with pytest.raises(CheckpointError, match=name):
        Detector.load(saved)


def test_another_version_is_refused(saved: Path) -> None:
    (state,) = saved.glob("step-*/state.json")
    values = json.loads(state.read_text())
    state.write_text(json.dumps({**values, "format_version": 99}))
    with pytest.raises(CheckpointError, match="version 99; accepted: 1"):
        Detector.load(saved)


def test_a_folder_without_a_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing does not exist"):
        Detector.load(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        Detector.load(tmp_path)


def test_a_training_checkpoint_is_no_detector(trained: tuple[Detector, Path, Recorder]) -> None:
    with pytest.raises(CheckpointError, match="holds a training checkpoint; accepted: a saved detector"):
        Detector.load(trained[1] / "checkpoints")


def test_a_configuration_of_another_version_is_refused(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    checkpoint.metadata["config"]["model"]["attention"] = True
    save_checkpoint(saved, Checkpoint(checkpoint.step, checkpoint.tensors, checkpoint.metadata))
    with pytest.raises(CheckpointError, match=r"does not know: model\.attention is no setting"):
        Detector.load(saved)


def test_a_detector_is_loaded_only_to_a_device_that_is_here(saved: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'cuda:99'"):
        Detector.load(saved, device="cuda:99")


def test_images_evaluated_together_have_the_figures_of_images_one_by_one(
    trained: tuple[Detector, Path, Recorder], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU does it; here on the CPU, in groups of three."""
    detector = trained[0]
    samples = find_samples(make_config(root).data).test
    alone = detector.evaluate(samples)

    monkeypatch.setattr(Detector, "_images_at_once", 3)
    together = detector.evaluate(samples)
    assert [image.name for image in together.images] == [image.name for image in alone.images]
    scores = [[image.score for image in found.images] for found in (together, alone)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert together.overall.pixel_auroc == pytest.approx(alone.overall.pixel_auroc, abs=1e-5)


@pytest.mark.parametrize("at_once", [1, 3])
def test_files_are_predicted_in_order_as_each_of_them_alone(
    trained: tuple[Detector, Path, Recorder], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    detector = trained[0]
    paths = [sample.path for sample in find_samples(make_config(root).data).test]
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:60])
    paths[1:1] = [broken, tmp_path / "missing.png"]
    monkeypatch.setattr(Detector, "_images_at_once", at_once)
    found = list(detector.predict_files(iter(paths)))
    assert [path for path, _ in found] == paths
    for path, prediction in found:
        if isinstance(prediction, Prediction):
            alone = detector.predict(path)
            assert prediction.score == pytest.approx(alone.score, abs=1e-6)
            assert torch.equal(prediction.image, alone.image)
            torch.testing.assert_close(prediction.score_map, alone.score_map, rtol=0, atol=1e-5)
        else:
            with pytest.raises(DataError) as raised:
                detector.predict(path)
            assert str(prediction) == str(raised.value)
    assert [path for path, prediction in found if isinstance(prediction, DataError)] == paths[1:3]


def test_groups_are_runs_of_one_shape_in_order() -> None:
    shapes = [(4, 4), (4, 4), (4, 4), (4, 5), (4, 4), (4, 4), None, None, (4, 4)]
    groups = list(_of_one_shape(range(9), 2, lambda number: shapes[number]))
    assert groups == [[0, 1], [2], [3], [4, 5], [6], [7], [8]]
