"""Holds the artifact's tokenizer against transformers': the same ids and type ids, for texts of every kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from model_export.auto_tokenizer import silence
from model_export.errors import ExportError
from model_export.frame import encoded
from model_export.samples import GOLDEN_TEXTS

LONG = 600
"""How many times a text is repeated: for most, some ten thousand characters."""

ODD_TEXTS = (
    " ",
    " \t\r\n ",
    "  two  spaces before, between, and behind  ",
    "tabs\tand\nlines\r\nand\u2028separators\u0085here",
    "a\u00a0no-break\u202fspace, a\u3000wide one and none\u200bat\ufeffall",
    "controls\x00\x07\x1b\x7f and \ufffd, \ue000 and \U000e0041",
    "e\u0301a\u0308n\u0303 with marks, \u1100\u1161\u11a8 in parts, ﬁ and Å in one",
    "İstanbul ΣΊΣΥΦΟΣ straße ǅ",
    "👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 👍🏽 🇩🇪",
    "日本語のテキストと한국어 텍스트、和中文。𠀀",
    "\u202bשלום עולם!\u202c ١٢٣",  # noqa: RUF001  # letters that look like others are meant
    "नमस्ते สวัสดีชาวโลก ကမ္ဘာ",
    "f(x)=x**2; // don't, won't, I'M, '' `` \\ \" ½ 10,000.5e-3 a_b-c@d.example",
    "[CLS] [SEP] [PAD] [UNK] [MASK] <s> </s> <pad> <unk> <mask> <|endoftext|> ▁ ## ##s Ġ",
    "supercalifragilisticexpialidocious" * 9,
    "x" * 5000,
)
PAIRS = (
    ("What is a berth?", "A place where a ship ties up."),
    ("  odd\tspaces ", "日本語 and 🙂"),
    ("a", "a word " * LONG),
    ("e\u0301 " * LONG, "."),
)
MOST_ADDED = 300
"""Added tokens that are tried one by one; all are in one text, too."""
SHOWN = 80
"""Characters of a text that an error shows."""


Tokens = tuple[list[int], list[int]]
"""Ids and type ids."""


def sample_inputs(tokenizer: Tokenizer) -> list[tuple[str, ...]]:
    """List texts and pairs to try, the tokenizer's own added tokens within sentences too."""
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    texts = [*GOLDEN_TEXTS, *ODD_TEXTS, " ".join(GOLDEN_TEXTS) * (LONG // 20)]
    texts += [f"A sentence with {token} in it, and{token}joined {token.upper()}." for token in added[:MOST_ADDED]]
    return [*((text,) for text in [*texts, " and ".join(added)]), *PAIRS]


def tokens_of(theirs: Any, inputs: Sequence[tuple[str, ...]], tells_types: bool) -> list[Tokens]:
    """Let transformers' tokenizer read texts and pairs; without `tells_types` the model is given none, so all are 0."""
    tokens = []
    with silence():
        for texts in inputs:
            found = theirs(*([text] for text in texts), return_token_type_ids=True, verbose=False)
            [ids], [types] = found["input_ids"], found["token_type_ids"]
            tokens.append((ids, types if tells_types else [0] * len(ids)))
    return tokens


def compare(tokenizer: Tokenizer, inputs: Sequence[tuple[str, ...]], expected: Sequence[Tokens], where: Path) -> None:
    """Raise `ExportError`, which names the text, where the artifact's tokenizer gives other tokens than expected."""
    for texts, (ids, types) in zip(inputs, expected, strict=True):
        found = encoded(tokenizer, texts)
        for what, ours, theirs in (("tokens", found.ids, ids), ("type ids", found.type_ids, types)):
            if ours != theirs:
                text = " | ".join(texts)
                shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
                raise ExportError(f"{where}: transformers gives other {what} than the tokenizer that it saves: {shown}")
