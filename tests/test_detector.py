"""What a detector says of images, one by one, in files and in a test set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_fixtures import Recorder, Trained, assert_same_prediction, changed, image, make_config, make_root
from image_files import noise, write
from sklearn.metrics import roc_auc_score
from torch import Tensor

from twostage import Detector, Prediction
from twostage.data import Sample, find_samples, read_image, read_mask
from twostage.detector import _of_one_shape
from twostage.errors import DataError
from twostage.scoring import resize_map

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


def test_a_file_and_its_pixels_give_the_same(detector: Detector, spots: Path) -> None:
    path = spots / "test/spot/0.png"
    accepted = detector.predict(read_image(path, color="gray", max_pixels=10**6))
    assert_same_prediction(detector.predict(path), accepted)


def test_bytes_and_floats_give_the_same(detector: Detector) -> None:
    pixels = image()
    assert_same_prediction(detector.predict(pixels.float() / 255), detector.predict(pixels))


def test_a_colour_file_is_read_as_the_detector_sees(detector: Detector, tmp_path: Path) -> None:
    write(tmp_path / "colour.png", noise(0, 96, 96, 3))
    assert detector.predict(tmp_path / "colour.png").image.shape == (1, 96, 96)


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


def test_figures_are_those_of_the_predictions(detector: Detector, spots: Path) -> None:
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


def test_images_evaluated_together_have_the_figures_of_images_one_by_one(
    trained: Trained, spots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU does it; here on the CPU, in groups of three."""
    detector = trained.detector
    samples = find_samples(make_config(spots).data).test
    alone = detector.evaluate(samples)

    monkeypatch.setattr(Detector, "_images_at_once", 3)
    together = detector.evaluate(samples)
    assert [image.name for image in together.images] == [image.name for image in alone.images]
    scores = [[image.score for image in found.images] for found in (together, alone)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert together.overall.pixel_auroc == pytest.approx(alone.overall.pixel_auroc, abs=1e-5)


@pytest.mark.parametrize("at_once", [1, 3])
def test_files_are_predicted_in_order_as_each_of_them_alone(
    trained: Trained, spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    detector = trained.detector
    paths = [sample.path for sample in find_samples(make_config(spots).data).test]
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
