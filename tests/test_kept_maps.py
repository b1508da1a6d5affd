"""Maps come back as they were, from memory and from the file."""

import pytest
import torch

from twostage.errors import OutputError
from twostage.files import ScratchFile
from twostage.kept_maps import KeptMaps


@pytest.mark.parametrize("in_memory", [0, 3 * 2 * 4 * 30, 1 << 20])
def test_maps_come_back_in_order_as_often_as_one_likes(in_memory: int) -> None:
    kept = KeptMaps(in_memory)
    given = [{"a": torch.rand(5, 6 + number), "b": torch.rand(5, 6 + number)} for number in range(7)]
    for maps in given:
        kept.append(maps)
    assert len(kept) == 7
    for _ in range(2):
        for found, expected in zip(kept, given, strict=True):
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_disk_that_is_full_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: ScratchFile, values: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ScratchFile, "append", full)
    with pytest.raises(
        OutputError, match=r"No space left on device while 16 bytes of score maps .*; accepted: .*TMPDIR"
    ):
        KeptMaps(0).append({"a": torch.zeros(2, 2)})
