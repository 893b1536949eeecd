"""Windows: how a long text is cut, and how its vectors are put together; tests/end_to_end has it against torch."""

from dataclasses import replace

import numpy as np
import pytest

from berth.text.truncation import Combine, Cut, Truncation
from berth.text.windows import Windows, combine, feature_of_window, split, tokens_read
from berth.types import Encoding, Float32Array, Frame, Merge, Pooling, ResolvedFeature

CLS, SEP = 101, 102
FRAME = Frame((CLS,), (SEP,), (SEP,))
NONE = ResolvedFeature(Pooling.NONE, (6,))


def encoding(count: int) -> Encoding:
    """Make a framed text of ids 0, 1, 2 …, two tokens a word."""
    ids = np.array([CLS, *range(count), SEP], dtype=np.int32)
    special = np.isin(np.arange(count + 2), [0, count + 1])
    words = np.array([-1, *(place // 2 for place in range(count)), -1], dtype=np.int32)
    return Encoding(ids, np.zeros_like(ids), special, words)


def windowed(count: int, window: int, stride: int) -> Windows:
    return split(encoding(count), Truncation(Cut.WINDOW, window=window, stride=stride), 256, FRAME)


def named(text: Windows) -> list[Float32Array]:
    """Give token vectors that say where they are from: [window, id]."""
    return [
        np.array([[number, id_] for id_ in part.ids], dtype=np.float32) for number, part in enumerate(text.encodings)
    ]


def test_each_window_is_framed() -> None:
    text = windowed(7, 5, 2)
    assert [part.ids.tolist() for part in text.encodings] == [
        [CLS, 0, 1, 2, SEP],
        [CLS, 2, 3, 4, SEP],
        [CLS, 4, 5, 6, SEP],
    ]
    assert text.spans == [(0, 3), (2, 5), (4, 7)]
    second = text.encodings[1]
    assert second.special is not None
    assert second.words is not None
    assert second.special.tolist() == [True, False, False, False, True]
    assert second.words.tolist() == [-1, 1, 1, 2, -1]


@pytest.mark.parametrize(("count", "window"), [(3, 5), (0, 5), (254, 0)])
def test_text_that_fits_into_one_window_stays_as_it_is(count: int, window: int) -> None:
    text = split(encoding(count), Truncation(Cut.WINDOW, window=window), 256, FRAME)
    assert text.encodings == [text.whole]


@pytest.mark.parametrize(
    ("truncation", "starts"),
    [(Truncation(Cut.WINDOW), [0, 254, 508]), (Truncation(Cut.WINDOW, window=202), [0, 200, 400, 600])],
)
def test_window_and_stride_are_the_largest_where_left_out(truncation: Truncation, starts: list[int]) -> None:
    assert [first for first, _ in split(encoding(700), truncation, 256, FRAME).spans] == starts


@pytest.mark.parametrize(
    ("feature", "of_window"),
    [
        (ResolvedFeature(Pooling.MEAN, (1, 2), normalize=True), ResolvedFeature(Pooling.MEAN, (1, 2))),
        (
            ResolvedFeature(Pooling.MAX, (1,), exclude_special=True),
            ResolvedFeature(Pooling.MAX, (1,), exclude_special=True),
        ),
        (
            ResolvedFeature(Pooling.NONE, (1,), normalize=True, exclude_special=True),
            ResolvedFeature(Pooling.NONE, (1,)),
        ),
        (
            ResolvedFeature(Pooling.WORDS, (1, 2), Merge.SUM, normalize=True),
            ResolvedFeature(Pooling.NONE, (1, 2), Merge.SUM),
        ),
        (
            ResolvedFeature(Pooling.CLS, (6,), normalize=True, further=(Pooling.MAX,), projected=9, dimensions=4),
            ResolvedFeature(Pooling.CLS, (6,), further=(Pooling.MAX,), projected=9),
        ),
    ],
    ids=str,
)
def test_what_each_window_must_give(feature: ResolvedFeature, of_window: ResolvedFeature) -> None:
    assert feature_of_window(feature) == of_window


@pytest.mark.parametrize(
    ("how", "vector"),
    [(Combine.MEAN, [(3 * 1 + 2 * 4 + 2 * -2) / 7, 5]), (Combine.MAX, [4, 5])],
)
def test_pooled_vectors_are_weighed_by_their_new_tokens(how: Combine, vector: list[float]) -> None:
    parts = [np.array(part, dtype=np.float32) for part in ([1, 5], [4, 5], [-2, 5])]
    feature = ResolvedFeature(Pooling.MEAN, (6,))
    combined = combine(feature, how, windowed(7, 5, 2), parts)
    np.testing.assert_allclose(combined, vector, rtol=1e-6)
    assert combined.dtype == np.float32
    normalised = combine(replace(feature, normalize=True), how, windowed(7, 5, 2), parts)
    np.testing.assert_allclose(normalised, np.array(vector) / np.linalg.norm(vector), rtol=1e-6)


def test_projected_vectors_are_put_together_and_cut_last() -> None:
    parts = [np.array(part, dtype=np.float32) for part in ([1, 5, 1], [4, 5, 1], [-2, 5, 1])]
    feature = ResolvedFeature(Pooling.MEAN, (6,), normalize=True, projected=3, dimensions=2)
    whole = np.array([1, 5, 1])
    np.testing.assert_allclose(
        combine(feature, Combine.MEAN, windowed(7, 5, 2), parts), (whole / np.linalg.norm(whole))[:2], rtol=1e-6
    )


def test_token_vectors_are_of_the_most_central_window() -> None:
    text = windowed(9, 7, 2)  # windows of 5: 0-4, 2-6, 4-8
    rows = combine(NONE, Combine.MEAN, text, named(text))
    assert rows.tolist() == [
        [0, CLS],
        [0, 0],
        [0, 1],
        [0, 2],  # the middle of the first
        [0, 3],  # one from the edge of both: the first
        [1, 4],
        [1, 5],
        [2, 6],
        [2, 7],
        [2, 8],
        [2, SEP],
    ]


def test_special_tokens_can_be_left_out_of_token_vectors() -> None:
    text = windowed(9, 7, 2)
    rows = combine(replace(NONE, exclude_special=True), Combine.MAX, text, named(text))
    assert rows[:, 1].tolist() == list(range(9))


def test_words_are_means_of_the_most_central_tokens() -> None:
    text = windowed(9, 7, 2)
    rows = combine(ResolvedFeature(Pooling.WORDS, (6,)), Combine.MEAN, text, named(text))
    assert rows.tolist() == [[0, 0.5], [0, 2.5], [1, 4.5], [2, 6.5], [2, 8]]


@pytest.mark.parametrize("stride", [1, 3, 6])
@pytest.mark.parametrize("length", [2, 3, 8, 9, 20, 21])
def test_cost_is_that_of_the_windows_without_making_them(length: int, stride: int) -> None:
    ids = np.arange(length, dtype=np.int32)
    whole, truncation = Encoding(ids, np.zeros_like(ids)), Truncation(Cut.WINDOW, window=8, stride=stride)
    assert tokens_read(whole, truncation, 40, FRAME) == sum(map(len, split(whole, truncation, 40, FRAME).encodings))
