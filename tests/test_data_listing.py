"""Lists of files: in the order of their paths, and small."""

import tracemalloc
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from twostage.data.listing import Lazy, files_in
from twostage.data.samples import GOOD, Sample
from twostage.data.split import split_validation

names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=12)


paths = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map("/".join)


@given(st.sets(paths))
def test_files_come_in_the_order_of_their_paths(found: set[str]) -> None:
    folder = Path("a/b")
    assert list(files_in(folder, found)) == sorted(folder / name for name in found)


def test_names_that_are_no_text_stay_themselves() -> None:
    found = [b"\xff.png", b"a\xc3.png", "é.png".encode()]
    names = [name.decode(errors="surrogateescape") for name in found]
    assert sorted(str(path) for path in files_in(Path(), names)) == sorted(names)


def test_a_lazy_sequence_is_one() -> None:
    lazy = Lazy(5, lambda number: number * number)
    assert list(lazy) == [0, 1, 4, 9, 16]
    assert (lazy[-1], lazy[1:3], lazy[::-2]) == (16, [1, 4], [16, 4, 0])
    assert lazy == (0, 1, 4, 9, 16)
    assert lazy != (0, 1, 4, 9)
    assert lazy != (0, 1, 4, 9, 15)
    assert lazy != 16


def test_a_file_takes_tens_of_bytes_split_or_not() -> None:
    """A list of paths takes some 500 for each."""
    count = 100_000
    tracemalloc.start()
    paths = files_in(Path("folder"), (f"image-{number:08}.png" for number in range(count)))
    train, held_out = split_validation(Lazy(count, lambda number: Sample(paths[number], GOOD)), 0.1, 0, 500)
    # Python's table of strings grows by leaps when paths pass through it, and then is for all to use.
    found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, "*pathlib*")])
    tracemalloc.stop()
    held = sum(trace.size for trace in found.traces)
    assert len(train) + len(held_out) == count
    assert held / count < 50
