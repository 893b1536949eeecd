"""Tokenizers of every kind and frame beside transformers', each made of the same tokenizer.json."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from berth.text.tokenizer import Tokenized
from berth.text.truncation import Cut, Truncation
from berth.types import Text, TextPair
from tests.berth.text.conftest import Kind, MakeTokenizer

SIDES = [("right", Cut.END), ("left", Cut.START)]
WORDS = ["hello", "the", "ship", "world", "a", "of", "1", "é", "你", "er"]

texts = st.text("ab hello the world ship:é你", max_size=80)


def transformers_tokenizer(kind: Kind, side: str) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=kind.library, truncation_side=side, **kind.special)


def check(kind: Kind, make_tokenizer: MakeTokenizer, values: list[str | TextPair], room: int, side: str) -> None:
    """Compare ids, type ids and whether something was cut, with so many tokens for text and frame."""
    cut = dict(SIDES)[side]
    theirs = transformers_tokenizer(kind, side)
    results = make_tokenizer(kind, max_tokens=room).encode([Text("input", value) for value in values], Truncation(cut))
    for value, ours in zip(values, results, strict=True):
        # Lists, for an empty second text beside a string would be none.
        parts = ([value.first], [value.second]) if isinstance(value, TextPair) else ([value],)
        expected = theirs(*parts, truncation="longest_first", max_length=room, return_token_type_ids=True)
        assert isinstance(ours, Tokenized), ours
        assert [ours.encoding.ids.tolist()] == expected["input_ids"], (value, room)
        assert [ours.encoding.type_ids.tolist()] == expected["token_type_ids"]
        assert ours.truncated == (len(theirs(*parts)["input_ids"][0]) > room)


@pytest.mark.parametrize("side", dict(SIDES))
@pytest.mark.parametrize("room", [5, 11, 12])
def test_pairs_of_all_lengths_are_cut_as_transformers_does(
    kind: Kind, make_tokenizer: MakeTokenizer, side: str, room: int
) -> None:
    """`longest_first`, for every two lengths around the room, even and odd."""
    lengths = product(range(10), repeat=2)
    pairs: list[str | TextPair] = [TextPair(" ".join(WORDS[:a]), " ".join(WORDS[10 - b :])) for a, b in lengths]
    check(kind, make_tokenizer, pairs, room, side)


@settings(max_examples=100, deadline=None)
@given(first=texts, second=st.none() | texts, room=st.integers(4, 40), side=st.sampled_from(sorted(dict(SIDES))))
def test_any_text_and_pair_is_cut_as_transformers_does(
    kind: Kind, make_tokenizer: MakeTokenizer, first: str, second: str | None, room: int, side: str
) -> None:
    check(kind, make_tokenizer, [first if second is None else TextPair(first, second)], room, side)


@pytest.mark.parametrize("prompt", ["query: ", "q:\n", "the ship", "hel", " "])
def test_prompt_is_as_many_tokens_as_sentence_transformers_counts(
    kind: Kind, make_tokenizer: MakeTokenizer, prompt: str
) -> None:
    """It counts the prompt alone in its frame, less a special token at the end (`Transformer._get_prompt_length`)."""
    [ours] = make_tokenizer(kind, max_tokens=99).encode([Text("input", "hello world", prompt)], Truncation())
    assert isinstance(ours, Tokenized)
    theirs = transformers_tokenizer(kind, "right")
    assert ours.encoding.ids.tolist() == theirs(prompt + "hello world")["input_ids"]
    assert ours.encoding.prompt == len(theirs(prompt)["input_ids"]) - 1
