"""The tokenizer: inputs in, framed encodings out, cut to the model's maximum as the caller wants it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tokenizers

from service.errors import ArtifactError, InvalidInputError
from service.inference.types import Encoding, Text, TokenIds

# The library's own threads would take cores from the encoder; the embedder's thread is one, and bulk goes in chunks.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

Truncate = Literal["end", "start", "error"]
"""What to do with a text beyond the model's maximum: keep its head, keep its tail, or refuse it."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text; `start` and `end` count the text's code points, `word` counts its words from 0."""

    id: int
    text: str
    start: int
    end: int
    word: int | None
    special: bool


@dataclass(frozen=True, slots=True, eq=False)
class Tokenized:
    """An input ready for the queue."""

    encoding: Encoding
    truncated: bool


class Tokenizer:
    """An artifact's tokenizer. Methods may be called from any thread; the library releases the GIL while it works."""

    def __init__(self, path: Path, *, max_tokens: int, vocab_size: int) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exceptions
            raise ArtifactError(f"{path} cannot be read: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens
        self._vocab_size = vocab_size
        self._first, self._last = self._tokenizer.encode("").ids  # [CLS], [SEP]

    def encode(self, texts: Sequence[Text], truncate: Truncate) -> list[Tokenized]:
        """Tokenize and frame texts; raises `InvalidInputError`, which names the text, where one cannot be encoded."""
        strings = [text.value for text in texts if isinstance(text.value, str)]
        encoded = iter(self._tokenizer.encode_batch_fast(strings))
        return [
            self._cut(text.name, next(encoded).ids if isinstance(text.value, str) else self._checked(text), truncate)
            for text in texts
        ]

    def tokens(self, text: Text, *, add_special_tokens: bool) -> list[Token]:
        """Tokenize a string into a table, uncut."""
        encoding = self._tokenizer.encode(text.value, add_special_tokens=add_special_tokens)
        columns = (encoding.ids, encoding.tokens, encoding.offsets, encoding.word_ids, encoding.special_tokens_mask)
        return [
            Token(id_, token, start, end, word, bool(special))
            for id_, token, (start, end), word, special in zip(*columns, strict=True)
        ]

    def decode(self, name: str, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Turn ids back into a text, as far as the vocabulary keeps it."""
        self._check_range(name, ids)
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def _checked(self, text: Text) -> list[int]:
        assert isinstance(text.value, TokenIds), "encode() handles strings itself"
        ids = text.value.ids
        self._check_range(text.name, ids)
        if len(ids) < 2 or ids[0] != self._first or ids[-1] != self._last:
            raise InvalidInputError(
                text.name,
                f"token ids must be this model's own, framed as /v1/tokenize gives them: {self._first} … {self._last}. "
                "A client that tokenizes by itself uses another model's vocabulary: send text "
                "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
            )
        return ids

    def _check_range(self, name: str, ids: Sequence[int]) -> None:
        if ids and (min(ids) < 0 or max(ids) >= self._vocab_size):
            raise InvalidInputError(name, f"token ids must be from 0 to {self._vocab_size - 1}")

    def _cut(self, name: str, ids: list[int], truncate: Truncate) -> Tokenized:
        excess = len(ids) - self._max_tokens
        if excess > 0:
            match truncate:
                case "error":
                    raise InvalidInputError(name, f"{len(ids)} tokens, the model takes {self._max_tokens}")
                case "end":
                    ids = ids[: self._max_tokens - 1] + ids[-1:]
                case "start":
                    ids = ids[:1] + ids[1 + excess :]
        array = np.array(ids, dtype=np.int32)
        return Tokenized(Encoding(array, np.zeros_like(array)), truncated=excess > 0)
