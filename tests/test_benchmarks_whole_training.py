"""The whole schedule in small."""

import json

import pytest

from benchmarks.whole_training import main


def test_the_parts_make_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--images=4", "--side=128", "--channels=1", "--epochs", "2", "1", "--device=cpu", "--without-lpips"])
    found = json.loads(capsys.readouterr().out)
    seconds = found["seconds"]
    whole = seconds.pop("whole")
    assert seconds.keys() == {
        *("checking images", "loading images", "training, stage 1", "training, stage 2", "calibrating")
    }
    assert 0.5 * whole < sum(seconds.values()) <= whole + 0.05
    assert found["epochs"] == [2, 1]
