"""What cannot be encoded is named, before anything is."""

from typing import Any

import pytest

from berth.encoder import Encoder
from berth.errors import InvalidInputError
from berth.features import Feature
from tests.berth.encoder.noting import SURROGATE, WIDTH, Noting

BAD: list[tuple[Any, str]] = [
    ("", "must not be empty"),
    (None, "must be a string"),
    (float("nan"), "must be a string"),
    (5, "must be a string"),
    (b"a ship", "must be a string"),
    ([], "must be a string"),
    ({}, "must be a string"),
    (SURROGATE, "character 0 is a lone surrogate"),
    ("a ship " + SURROGATE, "character 7 is a lone surrogate"),
]


@pytest.mark.parametrize(("value", "message"), BAD, ids=repr)
def test_a_bad_text_is_named(fake: Encoder, backend: Noting, value: Any, message: str) -> None:
    texts = ["a ship", "a boat", value, "a rope"]
    for call in (fake.encode, fake.features, fake.tokens):
        with pytest.raises(InvalidInputError, match=message) as error:
            call(texts)
        assert error.value.param == "inputs[2]"
        assert str(error.value).startswith("inputs[2]: ")
    assert backend.batches == []


@pytest.mark.parametrize("text", ["", SURROGATE])
def test_a_bad_text_alone_is_the_first_input(fake: Encoder, text: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        fake.encode(text)
    assert error.value.param == "inputs[0]"


@pytest.mark.parametrize("value", [None, 5, 0.5, {"tokens": ["a", "ship"]}, Feature()], ids=repr)
def test_what_is_no_list_of_texts_is_named(fake: Encoder, value: Any) -> None:
    for call in (fake.encode, fake.features, fake.tokens):
        with pytest.raises(InvalidInputError, match="must be a list of inputs") as error:
            call(value)
        assert error.value.param == "inputs"


def test_a_string_in_place_of_a_list_is_no_list_of_letters(fake: Encoder) -> None:
    for call in (fake.features, fake.tokens):
        with pytest.raises(InvalidInputError, match="must be a list of inputs, not str"):
            call("a ship")


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (("", ""), "inputs[1]"),
        (("a",), "inputs[1]"),
        (("a", "b", "c"), "inputs[1]"),
        (("a", None), "inputs[1]"),
        (("a", SURROGATE), "inputs[1]"),
        ((SURROGATE, "b"), "inputs[1]"),
        ({"tokens": []}, "inputs[1]"),
        ({"tokens": ["", ""]}, "inputs[1]"),
        ({"tokens": "a ship"}, "inputs[1]"),
        ({"tokens": ["a", 5]}, "inputs[1]"),
        ({"tokens": ["a", SURROGATE]}, "inputs[1].tokens[1]"),
        ({"tokens": ["a", " ", "ship"]}, "inputs[1].tokens[1]"),
        ({"tokens": ["a"], "text": "a"}, "inputs[1]"),
        ({"words": ["a"]}, "inputs[1]"),
    ],
    ids=repr,
)
def test_a_bad_pair_or_split_text_is_named(fake: Encoder, value: Any, param: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        fake.features(["a ship", value], [Feature("words")])
    assert error.value.param == param


def test_emoji_and_other_planes_are_texts(fake: Encoder) -> None:
    assert fake.encode(["\U0001f6a2", "船", "\x00 nul", "\u200b"]).shape == (4, WIDTH)


def test_a_text_that_leaves_no_token_but_the_special_ones_is_encoded(fake: Encoder) -> None:
    assert fake.encode(" ").shape == (WIDTH,)
    with pytest.raises(InvalidInputError, match="has special tokens only") as error:
        fake.features(["a ship", " "], [Feature(exclude_special=True)])
    assert error.value.param == "inputs[1]"
