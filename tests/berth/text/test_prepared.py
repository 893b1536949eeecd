"""One input as sequences, and its answer from theirs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from berth.errors import EncoderError, InvalidInputError
from berth.text.prepared import EncodeOptions, Item, PreparedText, prepare
from berth.text.tokenizer import Token, Tokenized
from berth.text.truncation import Cut, Truncation
from berth.types import Encoding, Frame, Merge, Pooling, ResolvedFeature, Vectors

FRAME = Frame((101,), (102,), (102,))
MEAN = ResolvedFeature(Pooling.MEAN, (6,))
TABLE = [Token(101, "[CLS]", 0, 0, None, True)]
WINDOWED = Truncation(Cut.WINDOW, window=4, stride=1)


def tokenized(count: int, *, truncated: bool = False) -> Tokenized:
    """Make a framed text of so many tokens, two tokens a word."""
    ids = np.array([101, *range(count), 102], dtype=np.int32)
    words = np.array([-1, *(place // 2 for place in range(count)), -1], dtype=np.int32)
    return Tokenized(Encoding(ids, np.zeros_like(ids), words < 0, words), truncated, TABLE)


def prepared(count: int, *features: ResolvedFeature, truncation: Truncation | None = None) -> PreparedText:
    options = EncodeOptions(features or (MEAN,), truncation or Truncation())
    return prepare("input[3]", options, tokenized(count), 256, FRAME)


def vectors(*numbers: float) -> Vectors:
    return [np.array([number], dtype=np.float32) for number in numbers]


@pytest.mark.parametrize(
    ("features", "detailed"),
    [
        ([MEAN], False),
        ([ResolvedFeature(Pooling.NONE, (6,))], False),
        ([MEAN, ResolvedFeature(Pooling.WORDS, (6,))], True),
        ([ResolvedFeature(Pooling.MAX, (6,), exclude_special=True)], True),
    ],
    ids=str,
)
def test_details_are_asked_for_where_a_feature_needs_them(features: list[ResolvedFeature], detailed: bool) -> None:
    assert EncodeOptions(tuple(features)).detailed == detailed


def test_plain_input_is_one_sequence_with_the_features_as_they_are() -> None:
    feature = ResolvedFeature(Pooling.MEAN, (6,), normalize=True)
    [sequence] = prepared(5, feature, MEAN).sequences
    assert (len(sequence), sequence.features) == (7, (feature, MEAN))


def test_windows_are_sequences_of_their_own() -> None:
    sequences = prepared(5, ResolvedFeature(Pooling.WORDS, (6,), normalize=True), truncation=WINDOWED).sequences
    assert [sequence.encoding.ids.tolist() for sequence in sequences] == [[101, at, at + 1, 102] for at in range(4)]
    assert {sequence.features for sequence in sequences} == {(ResolvedFeature(Pooling.NONE, (6,)),)}


def test_answer_takes_its_own_results_and_no_more() -> None:
    results = iter([vectors(1), vectors(3), vectors(5), vectors(7), vectors(99)])
    item = prepared(5, truncation=WINDOWED).answer(results)
    assert isinstance(item, Item)
    np.testing.assert_allclose(item.vectors[0], (2 * 1 + 3 + 5 + 7) / 5)
    assert (item.token_count, item.truncated, item.table) == (7, False, TABLE)
    assert next(results) == vectors(99)


def test_answer_says_what_was_cut() -> None:
    item = prepare("a", EncodeOptions((MEAN,)), tokenized(5, truncated=True), 256, FRAME).answer(iter([vectors(1)]))
    assert isinstance(item, Item)
    assert item.truncated


def test_failed_window_fails_its_input_and_the_next_input_has_its_results() -> None:
    results: Any = iter([vectors(1), EncoderError("failed"), vectors(5), vectors(7), vectors(99)])
    error = prepared(5, truncation=WINDOWED).answer(results)
    assert isinstance(error, EncoderError)
    assert str(error) == "input[3]: failed"
    item = prepared(2).answer(results)
    assert isinstance(item, Item)
    assert item.vectors == vectors(99)


@pytest.mark.parametrize(
    ("feature", "vectors", "of_windows"),
    [
        (MEAN, 1, 4),
        (ResolvedFeature(Pooling.MEAN_MAX, (1, 2)), 4, 4 * 4),
        (ResolvedFeature(Pooling.MEAN_MAX, (1, 2), Merge.MEAN), 2, 2 * 4),
        (ResolvedFeature(Pooling.CLS, (6,), further=(Pooling.MAX,)), 2, 2 * 4),
        (ResolvedFeature(Pooling.CLS, (6,), projected=3 * 384), 3, 3 * 4),
        (ResolvedFeature(Pooling.CLS, (6,), projected=3 * 384, dimensions=384), 1, 3 * 4),  # each window's is whole
        (ResolvedFeature(Pooling.POOLER, (6,)), 1, 4),
        (ResolvedFeature(Pooling.NONE, (6,)), 7, 4 * 4),
        (ResolvedFeature(Pooling.NONE, (5, 6), exclude_special=True), 5 * 2, 4 * 4 * 2),
        (ResolvedFeature(Pooling.WORDS, (6,)), 3, 4 * 4),
        (ResolvedFeature(Pooling.WORDS, (4, 5, 6)), 3 * 3, 4 * 4 * 3),
    ],
    ids=str,
)
def test_numbers_of_the_answer_are_known_beforehand(feature: ResolvedFeature, vectors: int, of_windows: int) -> None:
    """Of windows those of each, which are kept until the last of them is there: four of four tokens here."""
    assert prepared(5, feature).numbers(384) == vectors * 384
    assert prepared(5, feature, MEAN).numbers(384) == (vectors + 1) * 384
    assert prepared(5, feature, truncation=WINDOWED).numbers(384) == of_windows * 384
    assert prepared(5, feature, MEAN, truncation=WINDOWED).numbers(384) == (of_windows + 4) * 384


def test_nothing_but_special_tokens_cannot_be_pooled_without_them() -> None:
    prepared(0)
    prepared(0, ResolvedFeature(Pooling.WORDS, (6,)))
    with pytest.raises(InvalidInputError, match="special tokens only") as error:
        prepared(0, MEAN, ResolvedFeature(Pooling.MEAN, (6,), exclude_special=True))
    assert error.value.param == "input[3]"


def test_nothing_but_a_prompt_cannot_be_pooled_without_it() -> None:
    whole, without = tokenized(3), ResolvedFeature(Pooling.MEAN, (6,), include_prompt=False)
    alone = replace(whole, encoding=replace(whole.encoding, prompt=len(whole.encoding)))
    prepare("input[3]", EncodeOptions((MEAN,)), alone, 256, FRAME)
    prepare("input[3]", EncodeOptions((without,)), whole, 256, FRAME)
    with pytest.raises(InvalidInputError, match="has no token beside the prompt's") as error:
        prepare("input[3]", EncodeOptions((MEAN, without)), alone, 256, FRAME)
    assert error.value.param == "input[3]"
    nearly = replace(whole, encoding=replace(whole.encoding, prompt=len(whole.encoding) - 1))  # [SEP] is left
    prepare("input[3]", EncodeOptions((without,)), nearly, 256, FRAME)
    with pytest.raises(InvalidInputError, match="special tokens only"):
        prepare("input[3]", EncodeOptions((replace(without, exclude_special=True),)), nearly, 256, FRAME)
