"""The default model's tokenizer beside transformers'."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from berth.artifact import Artifact
from berth.models import DEFAULT_MODEL
from berth.text.tokenizer import Tokenized, Tokenizer
from berth.text.truncation import Cut, Truncation
from berth.types import Text, TextPair
from model_export.checkpoint import find_checkpoint


@pytest.fixture(scope="module")
def transformers_tokenizer() -> Any:
    """Give the default model's tokenizer by transformers."""
    return AutoTokenizer.from_pretrained(find_checkpoint(DEFAULT_MODEL).folder)


def encode(tokenizer: Tokenizer, *values: str | TextPair, cut: Cut = Cut.END) -> list[Tokenized]:
    """Encode inputs of which none is bad."""
    results = tokenizer.encode([Text("input", value) for value in values], Truncation(cut))
    tokenized = [each for each in results if isinstance(each, Tokenized)]
    assert len(tokenized) == len(values)
    return tokenized


@pytest.mark.parametrize(("cut", "side"), [(Cut.END, "right"), (Cut.START, "left")])
def test_pairs_are_cut_as_transformers_does(
    artifact: Artifact, transformers_tokenizer: Any, cut: Cut, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`longest_first`, for every two lengths around the room, of nine tokens."""
    sizes = {"max_tokens": 12, "vocab_size": 30522}
    short = Tokenizer(artifact.tokenizer, frame=artifact.manifest.frame, **sizes)
    monkeypatch.setattr(transformers_tokenizer, "truncation_side", side)
    numbers = [str(number) for number in range(14)]
    lengths = list(product(range(14), repeat=2))
    pairs = [(" ".join(numbers[:first]), " ".join(numbers[:second])) for first, second in lengths]
    expected = transformers_tokenizer(*map(list, zip(*pairs, strict=True)), truncation=True, max_length=12)
    ours = encode(short, *(TextPair(*pair) for pair in pairs), cut=cut)
    assert [pair.encoding.ids.tolist() for pair in ours] == expected["input_ids"]
    assert [pair.encoding.type_ids.tolist() for pair in ours] == expected["token_type_ids"]
    assert [pair.truncated for pair in ours] == [first + second > 9 for first, second in lengths]


@settings(max_examples=300, deadline=None)
@given(text=st.text(min_size=1, max_size=120))
def test_ids_of_any_text_are_transformers(tokenizer: Tokenizer, transformers_tokenizer: Any, text: str) -> None:
    [ours] = encode(tokenizer, text)
    assert ours.encoding.ids.tolist() == transformers_tokenizer(text, truncation=True, max_length=256)["input_ids"]
