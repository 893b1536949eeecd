"""Which tokens are kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.inference.truncation import Cut, Truncation, kept, kept_of_pair, windows

MIDDLE = Truncation(Cut.MIDDLE)


@pytest.mark.parametrize(
    ("count", "room", "truncation", "places"),
    [
        (7, 4, Truncation(Cut.END), [0, 1, 2, 3]),
        (7, 4, Truncation(Cut.START), [3, 4, 5, 6]),
        (7, 4, MIDDLE, [0, 4, 5, 6]),
        (9, 5, MIDDLE, [0, 1, 6, 7, 8]),
        (9, 1, MIDDLE, [0]),
        (7, 4, Truncation(Cut.MIDDLE, head=0), [3, 4, 5, 6]),
        (7, 4, Truncation(Cut.MIDDLE, head=3), [0, 1, 2, 6]),
        (7, 4, Truncation(Cut.MIDDLE, head=4), [0, 1, 2, 3]),
        (7, 4, Truncation(Cut.MIDDLE, head=99), [0, 1, 2, 3]),
        (4, 4, MIDDLE, [0, 1, 2, 3]),
        (2, 4, Truncation(Cut.START), [0, 1]),
        (0, 4, MIDDLE, []),
        (3, 0, Truncation(Cut.START), []),
        (3, 0, MIDDLE, []),
    ],
    ids=str,
)
def test_cut(count: int, room: int, truncation: Truncation, places: list[int]) -> None:
    assert kept(count, room, truncation).tolist() == places


def test_middle_is_that_of_sun_et_al() -> None:
    places = kept(2000, 510, MIDDLE).tolist()
    assert (places[:128], places[128:]) == (list(range(128)), list(range(2000 - 382, 2000)))


@pytest.mark.parametrize(
    ("first", "second", "room", "lengths"),
    [
        (3, 4, 10, (3, 4)),
        (9, 9, 10, (5, 5)),
        (9, 9, 11, (5, 6)),
        (10, 9, 11, (6, 5)),
        (2, 99, 10, (2, 8)),
        (99, 2, 10, (8, 2)),
        (6, 99, 10, (5, 5)),
        (0, 99, 10, (0, 10)),
        (99, 0, 10, (10, 0)),
        (5, 5, 10, (5, 5)),
        (1, 1, 1, (0, 1)),
    ],
)
def test_longer_text_of_a_pair_is_cut_first(first: int, second: int, room: int, lengths: tuple[int, int]) -> None:
    for cut in (Cut.END, Cut.START):
        a, b = kept_of_pair(first, second, room, Truncation(cut))
        assert (len(a), len(b)) == lengths
        assert a.tolist() == (list(range(lengths[0])) if cut is Cut.END else list(range(first - lengths[0], first)))
        assert b.tolist() == (list(range(lengths[1])) if cut is Cut.END else list(range(second - lengths[1], second)))


@pytest.mark.parametrize(
    ("count", "room", "stride", "spans"),
    [
        (10, 4, 4, [(0, 4), (4, 8), (8, 10)]),
        (10, 4, 3, [(0, 4), (3, 7), (6, 10)]),
        (11, 4, 3, [(0, 4), (3, 7), (6, 10), (9, 11)]),
        (8, 4, 4, [(0, 4), (4, 8)]),
        (5, 4, 1, [(0, 4), (1, 5)]),
        (3, 1, 1, [(0, 1), (1, 2), (2, 3)]),
        (4, 4, 2, [(0, 4)]),
        (2, 4, 1, [(0, 2)]),
        (0, 4, 2, [(0, 0)]),
    ],
)
def test_windows_by_hand(count: int, room: int, stride: int, spans: list[tuple[int, int]]) -> None:
    assert windows(count, room, stride) == spans


@settings(max_examples=300, deadline=None, database=None)
@given(count=st.integers(1, 300), room=st.integers(1, 60), data=st.data())
def test_windows_cover_everything_and_each_brings_something_new(count: int, room: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, room))
    spans = windows(count, room, stride)
    assert set().union(*(range(*span) for span in spans)) == set(range(count))
    assert all(0 < last - first <= room for first, last in spans)
    assert np.all(np.diff([last for _, last in spans]) > 0)
    assert np.all(np.diff([first for first, _ in spans]) == stride)
