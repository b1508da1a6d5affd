"""Where the work runs."""

import pytest
import torch

from twostage.devices import choose_device
from twostage.errors import ConfigError


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("name", "count"), [("cpu", 0), ("cuda", 1), ("cuda:0", 1), ("cuda:3", 4)])
def test_a_device_that_is_here_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "meta", "mps", "CPU"])
def test_a_name_that_is_none_of_the_accepted_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"device is '{name}'; accepted: auto, cpu, cuda"):
        choose_device(name)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ConfigError, match=rf"device is '{name}', and {count} CUDA devices are here"):
        choose_device(name)
