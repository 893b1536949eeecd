"""`features` and `tokens`: any representation, and the tokens with their places."""

from typing import Any

import numpy as np
import pytest

from berth.encoder import Encoder, Input
from berth.errors import InvalidInputError
from berth.features import Feature
from berth.types import Float32Array
from tests.berth.encoder.noting import LONG, WIDTH, MakeEncoder, Noting, sentences


def test_features_are_one_array_each_in_their_order(either: Encoder) -> None:
    features = [
        Feature(),
        Feature("none"),
        Feature("none", exclude_special=True),
        Feature("words"),
        Feature("mean_max"),
        Feature("cls", layers=[-1, -2]),
        Feature("max", layers=[0, 1, 2], merge="sum"),
        Feature("none", layers=[1, 2], merge=[0.5, 2]),
    ]
    inputs: list[Input] = ["a ship in harbour", ("a ship", "a boat at berth"), {"tokens": ["a", "ship", "unberthed"]}]
    vectors = either.features(inputs, features)
    texts = either.tokens(["a ship in harbour", "a ship a boat at berth", "a ship unberthed"])
    specials = [2, 3, 2]
    counts = [len(text) - 2 + special for text, special in zip(texts, specials, strict=True)]
    for array, count, special, words in zip(vectors, counts, specials, [4, 6, 3], strict=True):
        assert [each.shape for each in array] == [
            (WIDTH,),
            (count, WIDTH),
            (count - special, WIDTH),
            (words, WIDTH),
            (2 * WIDTH,),
            (2 * WIDTH,),
            (WIDTH,),
            (count, WIDTH),
        ]
        assert {each.dtype for each in array} == {np.dtype(np.float32)}


def test_layers_are_merged_as_the_caller_says(real: Encoder) -> None:
    def of(*features: Feature) -> list[Float32Array]:
        return real.features(["a ship in harbour"], features)[0]

    first, last = of(Feature(layers=[1]), Feature(layers=[6]))
    merged = of(
        Feature(layers=[1, -1]),
        Feature(layers=[1, -1], merge="mean"),
        Feature(layers=[1, -1], merge="sum"),
        Feature(layers=[1, -1], merge=[0.25, 2]),
        Feature(normalize=True),
    )
    expected = [np.concatenate([first, last]), (first + last) / 2, first + last, 0.25 * first + 2 * last]
    for vector, each in zip(merged, [*expected, last / np.linalg.norm(last)], strict=True):
        np.testing.assert_allclose(vector, each, atol=1e-5)
    np.testing.assert_allclose(merged[-1], real.encode("a ship in harbour"), atol=1e-6)


def test_poolings_are_of_the_token_vectors(real: Encoder) -> None:
    features = [Feature(pooling) for pooling in ("none", "mean", "max", "cls", "last", "words")]
    [[states, mean, highest, cls, last, words]] = real.features(["a ship unberthed"], features)
    np.testing.assert_allclose(mean, states.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(highest, states.max(axis=0), atol=1e-5)
    np.testing.assert_allclose(cls, states[0], atol=1e-5)
    np.testing.assert_allclose(last, states[-1], atol=1e-5)
    np.testing.assert_allclose(words[:2], states[1:3], atol=1e-5)
    np.testing.assert_allclose(words[2], states[3:-1].mean(axis=0), atol=1e-5)


def test_words_that_were_split_by_the_caller_are_words(real: Encoder) -> None:
    [[split], [whole]] = real.features([{"tokens": ["a", "ship"]}, "a ship"], [Feature("words")])
    np.testing.assert_allclose(split, whole, atol=1e-5)


def test_pairs_are_two_texts_in_one(real: Encoder, fake: Encoder, backend: Noting) -> None:
    [[pair], [other], [one]] = real.features([("a ship", "a boat"), ("a boat", "a ship"), "a ship a boat"])
    assert min(np.abs(pair - other).max(), np.abs(pair - one).max()) > 1e-3
    fake.features([("a ship", "a boat"), ("", "a boat")])
    types = sorted(sequence.encoding.type_ids.tolist() for batch in backend.batches for sequence in batch)
    assert types == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]


def test_vectors_of_a_feature_do_not_hold_their_batch(real: Encoder) -> None:
    vectors = real.features(sentences(5), [Feature(), Feature("none")])
    assert all(vector.base is None for arrays in vectors for vector in arrays)


def test_tokens_of_all_windows_have_their_vectors(fake: Encoder) -> None:
    [[states, words]] = fake.features(
        [LONG], [Feature("none"), Feature("words")], truncate={"window": 50, "stride": 20}
    )
    assert (states.shape, words.shape) == ((302, WIDTH), (300, WIDTH))


def test_no_inputs_have_no_features(either: Encoder) -> None:
    assert either.features([]) == []


def test_features_that_make_no_sense_are_named(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder(Noting(), manifest={"outputs": {}})
    for features, param in (
        ([], "features"),
        ([Feature(), Feature("median")], "features[1].pooling"),
        ([Feature(layers=[7])], "features[0].layers[0]"),
        ([Feature("pooler")], "features[0].pooling"),
    ):
        with pytest.raises(InvalidInputError) as error:
            encoder.features(["a ship"], features)
        assert error.value.param == param


def test_tokens_tell_where_they_stand_in_their_text(fake: Encoder) -> None:
    [unberthed, ship] = fake.tokens(["A ship unberthed", "ship"])
    assert (unberthed[0].text, unberthed[0].special, unberthed[0].word) == ("[CLS]", True, None)
    pieces = [(token.text, "A ship unberthed"[token.start : token.end], token.word) for token in unberthed[1:3]]
    assert pieces == [("a", "A", 0), ("ship", "ship", 1)]
    assert {token.word for token in unberthed[3:-1]} == {2}
    assert [token.text for token in ship] == ["[CLS]", "ship", "[SEP]"]


def test_tokens_are_uncut_and_may_be_without_special_ones(fake: Encoder) -> None:
    [framed], [plain] = fake.tokens([LONG]), fake.tokens([LONG], add_special_tokens=False)
    assert (len(framed), len(plain)) == (302, 300)
    assert not any(token.special for token in plain)
    assert fake.tokens([]) == []


@pytest.mark.parametrize("value", [("a", "b"), {"tokens": ["a"]}], ids=str)
def test_tokens_are_those_of_texts_alone(fake: Encoder, value: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be a string") as error:
        fake.tokens(["a", value])
    assert error.value.param == "inputs[1]"
