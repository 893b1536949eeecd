"""The texts by which the artifact's tokenizer is held against transformers'."""

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from model_export.errors import ExportError
from model_export.frame import encoded
from model_export.token_comparison import compare, sample_inputs


@pytest.fixture
def tokenizer(minilm: Path) -> Tokenizer:
    return Tokenizer.from_file(str(minilm / "tokenizer.json"))


def test_samples_are_of_every_kind(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([AddedToken(f"<new{number}>") for number in range(400)])
    inputs = sample_inputs(tokenizer)
    texts = [texts[0] for texts in inputs if len(texts) == 1]
    assert {"", " "} <= {*texts}
    assert max(map(len, texts)) > 5000
    assert any("\x00" in text for text in texts)
    assert any("\u200d" in text for text in texts)
    assert any("e\u0301" in text for text in texts)
    assert any("A sentence with [MASK] in it" in text for text in texts)
    assert any("<new399>" in text for text in texts), "the last of many added tokens, too"
    assert len(inputs) < 400
    assert any(len(text) > 1000 for texts in inputs if len(texts) == 2 for text in texts)


def test_another_type_is_seen_in_a_pair_alone(tokenizer: Tokenizer) -> None:
    inputs = sample_inputs(tokenizer)
    expected = [((found := encoded(tokenizer, texts)).ids, found.type_ids) for texts in inputs]
    compare(tokenizer, inputs, expected, Path("tokenizer.json"))
    flat = [(ids, [0] * len(ids)) for ids, _ in expected]
    with pytest.raises(ExportError, match=r"^tokenizer\.json: .* other type ids .*: 'What is a berth\? \| A place"):
        compare(tokenizer, inputs, flat, Path("tokenizer.json"))
