"""What a caller may say of long texts, and which tokens are kept."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.artifact import Manifest, TokenizerFacts
from berth.errors import InvalidInputError
from berth.text.truncation import Combine, Cut, Truncation, kept, kept_of_pair, truncation_of, windows
from berth.types import Frame

FRAME = Frame((101,), (102,), (102,))
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


def manifest(frame: Frame = FRAME, side: Literal["right", "left"] = "right") -> Manifest:
    """Give what is read of a manifest here."""
    facts = TokenizerFacts(kind="", transformers_version="", truncation_side=side)
    fields: dict[str, Any] = {"max_tokens": 256, "frame": frame, "tokenizer": facts}
    return Manifest.model_construct(**fields)


def window(window: int, stride: int = 0, combine: Combine = Combine.MEAN) -> Truncation:
    return Truncation(Cut.WINDOW, window=window, stride=stride, combine=combine)


@pytest.mark.parametrize(
    ("value", "truncation"),
    [
        ("end", Truncation(Cut.END)),
        ("start", Truncation(Cut.START)),
        ("middle", Truncation(Cut.MIDDLE)),
        ("error", Truncation(Cut.ERROR)),
        ({"head": 64}, Truncation(Cut.MIDDLE, head=64)),
        ({"head": 0}, Truncation(Cut.MIDDLE, head=0)),
        ({"head": 254}, Truncation(Cut.MIDDLE, head=254)),
        ({"window": 200, "stride": 100, "combine": "max"}, window(200, 100, Combine.MAX)),
        ({"window": 200, "stride": 198, "combine": "mean"}, window(200, 198)),
        ({"window": 200}, window(200)),
        ({"window": 3, "stride": 1}, window(3, 1)),
        ({"window": 256, "stride": 254}, window(256, 254)),
        ({"stride": 10}, window(256, 10)),
        ({"combine": "max"}, window(256, 0, Combine.MAX)),
        ({"window": None, "stride": None, "combine": None}, window(256)),
        ({}, window(256)),
    ],
    ids=str,
)
def test_what_a_caller_may_say(value: str | Mapping[str, object], truncation: Truncation) -> None:
    assert truncation_of(value, manifest()) == truncation


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        ("centre", "truncate", "'centre' is none of end, start, middle, error"),
        ("window", "truncate", "'window' is none of end, start, middle, error"),
        ("", "truncate", "'' is none of end, start, middle, error"),
        (True, "truncate", "must be a name, or a mapping with `head` or `window`"),
        (["window"], "truncate", "must be a name, or a mapping with `head` or `window`"),
        ({"head": -1}, "truncate.head", "must be an integer of at least 0"),
        ({"head": 1.0}, "truncate.head", "must be an integer of at least 0"),
        ({"head": True}, "truncate.head", "must be an integer of at least 0"),
        ({"head": "64"}, "truncate.head", "must be an integer of at least 0"),
        ({"head": None}, "truncate.head", "must be an integer of at least 0"),
        ({"head": 255}, "truncate.head", "must be at most 254, not 255"),
        ({"head": 64, "window": 200}, "truncate.window", "does not go with `head`"),
        ({"window": 0}, "truncate.window", "must be an integer of at least 1"),
        ({"window": "all"}, "truncate.window", "must be an integer of at least 1"),
        ({"window": 2}, "truncate.window", "must be above 2, the special tokens of each window"),
        ({"window": 257}, "truncate.window", "must be at most 256, not 257"),
        ({"stride": 0}, "truncate.stride", "must be an integer of at least 1"),
        ({"stride": 255}, "truncate.stride", "must be at most 254, not 255"),
        ({"window": 200, "stride": 199}, "truncate.stride", "must be at most 198, not 199"),
        ({"combine": "sum"}, "truncate.combine", "'sum' is none of mean, max"),
        ({"combine": 1}, "truncate.combine", "1 is none of mean, max"),
        ({"windows": 200}, "truncate.windows", "is not a field of truncate"),
    ],
    ids=str,
)
def test_what_a_caller_may_not_say_is_named_with_its_limit(value: Any, field: str, reason: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        truncation_of(value, manifest())
    assert (error.value.param, str(error.value)) == (field, f"{field}: {reason}")


def test_what_was_given_is_left_as_it_is() -> None:
    value = {"window": 200, "stride": 100, "combine": "max"}
    truncation_of(value, manifest())
    assert value == {"window": 200, "stride": 100, "combine": "max"}


@pytest.mark.parametrize(("side", "cut"), [("right", Cut.END), ("left", Cut.START)])
def test_what_is_not_said_is_the_models_own_way(side: Literal["right", "left"], cut: Cut) -> None:
    assert truncation_of(None, manifest(side=side)) == Truncation(cut)
    assert truncation_of("end", manifest(side=side)) == Truncation(Cut.END)
    assert truncation_of({}, manifest(side=side)) == window(256)


@pytest.mark.parametrize("frame", [Frame((), (), ()), Frame((), (1,), (1,), None), Frame((5, 6), (7,), (8, 9))])
def test_limits_are_of_the_frame(frame: Frame) -> None:
    size = frame.size()
    assert truncation_of({"head": 256 - size}, manifest(frame)) == Truncation(Cut.MIDDLE, head=256 - size)
    assert truncation_of({"window": size + 1, "stride": 1}, manifest(frame)) == window(size + 1, 1)
    for value, reason in (
        ({"head": 257 - size}, f"truncate.head: must be at most {256 - size}, not {257 - size}"),
        ({"stride": 257 - size}, f"truncate.stride: must be at most {256 - size}, not {257 - size}"),
        ({"window": size} if size else {"window": 0}, "truncate.window: must be"),
    ):
        with pytest.raises(InvalidInputError) as error:
            truncation_of(value, manifest(frame))
        assert str(error.value).startswith(reason)
