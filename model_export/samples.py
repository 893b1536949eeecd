"""The texts by which a graph is judged: real ones, which also become the golden vectors, and random ones."""

from functools import partial

import numpy as np
from tokenizers import Tokenizer

from berth.types import Encoding
from model_export.graphs.int8 import LONG
from model_export.network import Network

GOLDEN_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Berth is a dock for BERT: it turns text into vectors, 384 or 768 numbers at a time.",
    "Déjà vu, naïve façades, über-cool, crème brûlée for £3.50 (≈ 4 €)!",
    "自然语言处理是人工智能的一个重要方向。",
    "معالجة اللغة الطبيعية فرع من الذكاء الاصطناعي",
    "Обработка естественного языка 🙂",
    "",
)


MOST_TOKENS = LONG + 1
"""Of a text by which a graph is judged, so that each of its branches runs: the reference lays out a score for each pair
of tokens in float64."""


def golden_encodings(tokenizer: Tokenizer, max_tokens: int) -> list[Encoding]:
    """Tokenize the real texts."""
    texts = [tokenizer.encode(text) for text in GOLDEN_TEXTS]
    array = partial(np.array, dtype=np.int32)
    return [Encoding(array(text.ids[:max_tokens]), array(text.type_ids[:max_tokens])) for text in texts]


def random_encodings(network: Network, max_tokens: int) -> list[Encoding]:
    """Draw a long text, one of a single token and one between, from all ids and all type ids."""
    random = np.random.default_rng(0)
    longest = min(max_tokens, MOST_TOKENS)
    return [
        Encoding(
            random.integers(network.vocab_size, size=length, dtype=np.int32),
            random.integers(max(1, network.type_vocab_size), size=length, dtype=np.int32),
        )
        for length in (longest, 1, longest // 3 + 1)
    ]
