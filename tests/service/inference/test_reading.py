"""One input as units, and its answer from theirs."""

from typing import Any

import numpy as np
import pytest

from service.errors import EncoderError, InvalidInputError
from service.inference.reading import Item, Reading, Wish, read
from service.inference.tokenizer import Token, Tokenized
from service.inference.truncation import Cut, Truncation
from service.inference.types import Encoding, Feature, Merge, Pooling, Vectors

MEAN = Feature(Pooling.MEAN, (6,))
TABLE = [Token(101, "[CLS]", 0, 0, None, True)]
WINDOWED = Truncation(Cut.WINDOW, window=4, stride=1)


def tokenized(count: int, *, truncated: bool = False) -> Tokenized:
    """Make a framed text of so many tokens, two tokens a word."""
    ids = np.array([101, *range(count), 102], dtype=np.int32)
    words = np.array([-1, *(place // 2 for place in range(count)), -1], dtype=np.int32)
    return Tokenized(Encoding(ids, np.zeros_like(ids), words < 0, words), truncated, TABLE)


def reading(count: int, *features: Feature, truncation: Truncation | None = None) -> Reading:
    wish = Wish(features or (MEAN,), truncation or Truncation())
    return read("input[3]", wish, tokenized(count), max_tokens=256)


def vectors(*numbers: float) -> Vectors:
    return [np.array([number], dtype=np.float32) for number in numbers]


@pytest.mark.parametrize(
    ("features", "detailed"),
    [
        ([MEAN], False),
        ([Feature(Pooling.NONE, (6,))], False),
        ([MEAN, Feature(Pooling.WORDS, (6,))], True),
        ([Feature(Pooling.MAX, (6,), exclude_special=True)], True),
    ],
    ids=str,
)
def test_details_are_asked_for_where_a_feature_needs_them(features: list[Feature], detailed: bool) -> None:
    assert Wish(tuple(features)).detailed == detailed


def test_plain_input_is_one_unit_with_the_features_as_they_are() -> None:
    feature = Feature(Pooling.MEAN, (6,), normalize=True)
    [unit] = reading(5, feature, MEAN).units
    assert (len(unit), unit.features) == (7, (feature, MEAN))


def test_windows_are_units_of_their_own() -> None:
    units = reading(5, Feature(Pooling.WORDS, (6,), normalize=True), truncation=WINDOWED).units
    assert [unit.encoding.ids.tolist() for unit in units] == [[101, at, at + 1, 102] for at in range(4)]
    assert {unit.features for unit in units} == {(Feature(Pooling.NONE, (6,)),)}


def test_answer_takes_its_own_results_and_no_more() -> None:
    results = iter([vectors(1), vectors(3), vectors(5), vectors(7), vectors(99)])
    item = reading(5, truncation=WINDOWED).answer(results)
    assert isinstance(item, Item)
    np.testing.assert_allclose(item.vectors[0], (2 * 1 + 3 + 5 + 7) / 5)
    assert (item.token_count, item.truncated, item.table) == (7, False, TABLE)
    assert next(results) == vectors(99)


def test_answer_says_what_was_cut() -> None:
    item = read("a", Wish((MEAN,)), tokenized(5, truncated=True), 256).answer(iter([vectors(1)]))
    assert isinstance(item, Item)
    assert item.truncated


def test_failed_window_fails_its_input_and_the_next_input_has_its_results() -> None:
    results: Any = iter([vectors(1), EncoderError("failed"), vectors(5), vectors(7), vectors(99)])
    error = reading(5, truncation=WINDOWED).answer(results)
    assert isinstance(error, EncoderError)
    assert str(error) == "input[3]: failed"
    item = reading(2).answer(results)
    assert isinstance(item, Item)
    assert item.vectors == vectors(99)


@pytest.mark.parametrize(
    ("feature", "vectors", "of_windows"),
    [
        (MEAN, 1, 4),
        (Feature(Pooling.MEAN_MAX, (1, 2)), 4, 4 * 4),
        (Feature(Pooling.MEAN_MAX, (1, 2), Merge.MEAN), 2, 2 * 4),
        (Feature(Pooling.POOLER, (6,)), 1, 4),
        (Feature(Pooling.NONE, (6,)), 7, 4 * 4),
        (Feature(Pooling.NONE, (5, 6), exclude_special=True), 5 * 2, 4 * 4 * 2),
        (Feature(Pooling.WORDS, (6,)), 3, 4 * 4),
        (Feature(Pooling.WORDS, (4, 5, 6)), 3 * 3, 4 * 4 * 3),
    ],
    ids=str,
)
def test_numbers_of_the_answer_are_known_beforehand(feature: Feature, vectors: int, of_windows: int) -> None:
    """Of windows those of each, which are kept until the last of them is there: four of four tokens here."""
    assert reading(5, feature).numbers(384) == vectors * 384
    assert reading(5, feature, MEAN).numbers(384) == (vectors + 1) * 384
    assert reading(5, feature, truncation=WINDOWED).numbers(384) == of_windows * 384
    assert reading(5, feature, MEAN, truncation=WINDOWED).numbers(384) == (of_windows + 4) * 384


def test_nothing_but_special_tokens_cannot_be_pooled_without_them() -> None:
    reading(0)
    reading(0, Feature(Pooling.WORDS, (6,)))
    with pytest.raises(InvalidInputError, match="special tokens only") as error:
        reading(0, MEAN, Feature(Pooling.MEAN, (6,), exclude_special=True))
    assert error.value.param == "input[3]"
