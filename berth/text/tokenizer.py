"""The tokenizer: inputs in, framed encodings out, cut to the model's maximum as the caller wants it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from berth.errors import ArtifactError, InvalidInputError
from berth.text.truncation import Cut, Truncation, kept, kept_of_pair
from berth.types import Encoding, Int32Array, IntArray, SplitText, Text, TextPair, TokenIds

# The library's own threads would take cores from the encoder; the embedder's thread is one, and bulk goes in chunks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `start` and `end` count its text's code points, `word` the words from 0, None for special tokens."""

    id: int
    text: str
    start: int
    end: int
    word: int | None
    special: bool


@dataclass(frozen=True, slots=True, eq=False)
class Tokenized:
    """An input as it will be read: its tokens, whether some were cut off, and what they are if that was asked for."""

    encoding: Encoding
    truncated: bool
    table: list[Token] | None


class Tokenizer:
    """An artifact's tokenizer. Methods may be called from any thread; the library releases the GIL while it works."""

    def __init__(self, path: Path, *, max_tokens: int, vocab_size: int, type_vocab_size: int) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exceptions
            raise ArtifactError(f"{path} cannot be read: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens
        self._vocab_size = vocab_size
        # Tokens may have been added without rows for them; the export sees to it that all others have one.
        self._has_rows = max(self._tokenizer.get_added_tokens_decoder(), default=0) < vocab_size
        self._type_vocab_size = type_vocab_size
        frame = self._tokenizer.encode("").ids
        if len(frame) != 2:
            raise ArtifactError(f"{path} does not frame a text by [CLS] and [SEP]")
        self._first, self._last = frame

    def encode(
        self, texts: Sequence[Text], truncation: Truncation, *, detailed: bool = False, table: bool = False
    ) -> list[Tokenized | InvalidInputError]:
        """Tokenize, frame and cut inputs; those to be read in windows stay whole. A bad one gives its error.

        `detailed` fills in the encodings' `special` and `words`, `table` the tables too (of token ids there is none).
        """
        results: list[Tokenized | InvalidInputError] = []
        for text, encoding in zip(texts, self._encodings(texts, detailed or table), strict=True):
            try:
                source = self._source(text, encoding, detailed=detailed or table)
                places = self._places(text, source, truncation)
                rows = _table(encoding, source.words, len(text.prompt)) if table and encoding else None
            except InvalidInputError as error:
                results.append(error)
            else:
                results.append(_cut(source, rows, places))
        return results

    def tokens(self, text: Text, *, add_special_tokens: bool) -> list[Token]:
        """Tokenize a string into a table, uncut."""
        encoding = self._tokenizer.encode(_sequence(text, is_split=False), add_special_tokens=add_special_tokens)
        return _table(encoding, _encoding_of(encoding, detailed=True).words, len(text.prompt))

    def framed_ids(self, tokens: Sequence[str]) -> list[int]:
        """Give the ids of word pieces between [CLS] and [SEP]; a piece that the vocabulary has not is [UNK]."""
        id_of = self._tokenizer.token_to_id
        unknown = id_of(self._tokenizer.model.unk_token)
        assert unknown is not None, "a vocabulary has its own [UNK]"
        return [self._first, *(unknown if (id_ := id_of(token)) is None else id_ for token in tokens), self._last]

    def decode(self, name: str, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Turn ids back into a text, as far as the vocabulary keeps it."""
        self._check_range(name, ids)
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def _encodings(self, texts: Sequence[Text], detailed: bool) -> list[tokenizers.Encoding | None]:
        """Let the library encode strings, pairs and split texts; None for token ids."""
        encode = self._tokenizer.encode_batch if detailed else self._tokenizer.encode_batch_fast
        encodings: list[tokenizers.Encoding | None] = [None] * len(texts)
        for is_split in (False, True):
            sequences = {index: found for index, text in enumerate(texts) if (found := _sequence(text, is_split))}
            if sequences:
                batch = encode(list(sequences.values()), is_pretokenized=is_split)
                for index, encoding in zip(sequences, batch, strict=True):
                    encodings[index] = encoding
        return encodings

    def _source(self, text: Text, encoding: tokenizers.Encoding | None, *, detailed: bool) -> Encoding:
        """Give an input's encoding, uncut."""
        match text.value:
            case TokenIds(ids):
                self._check_ids(text.name, ids)
                return _encoding_of_ids(ids)
            case TextPair() if self._type_vocab_size < 2:
                raise InvalidInputError(text.name, "the model has one segment type and takes no pairs")
        assert encoding is not None, "the library encodes all but token ids"
        if not self._has_rows:
            self._check_rows(text.name, encoding)
        source = _encoding_of(encoding, detailed=detailed)
        if isinstance(text.value, SplitText) and source.words is not None:
            _check_words(text.name, text.value.words, source.words)
        return source

    def _places(self, text: Text, source: Encoding, truncation: Truncation) -> IntArray | None:
        """Give the places of the tokens that are kept, None where all are."""
        total, pair = len(source.ids), isinstance(text.value, TextPair)
        room = truncation.window or self._max_tokens if pair else self._max_tokens
        if total <= room or (truncation.cut is Cut.WINDOW and not pair):
            return None
        if truncation.cut is Cut.ERROR:
            raise InvalidInputError(text.name, f"{total} tokens, the model takes {self._max_tokens}")
        if not pair:
            return np.concatenate([[0], kept(total - 2, self._max_tokens - 2, truncation) + 1, [total - 1]])
        if truncation.cut not in (Cut.END, Cut.START):
            raise InvalidInputError(text.name, f"{total} tokens: a pair can be cut at `end` or `start` alone")
        middle = int(np.argmax(source.type_ids)) - 1  # the first [SEP]
        first, second = kept_of_pair(middle - 1, total - middle - 2, self._max_tokens - 3, truncation)
        return np.concatenate([[0], first + 1, [middle], second + middle + 1, [total - 1]])

    def _check_ids(self, name: str, ids: Sequence[int]) -> None:
        if len(ids) < 2 or ids[0] != self._first or ids[-1] != self._last:
            raise InvalidInputError(
                name,
                f"token ids must be this model's own, framed as /v1/tokenize gives them: {self._first} … {self._last}. "
                "A client that tokenizes by itself uses another model's vocabulary: send text "
                "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
            )
        self._check_range(name, ids)

    def _check_rows(self, name: str, encoding: tokenizers.Encoding) -> None:
        missing = next((id_ for id_ in encoding.ids if id_ >= self._vocab_size), None)
        if missing is not None:
            token = self._tokenizer.id_to_token(missing)
            raise InvalidInputError(name, f"has the token {token!r}, for which the model has no embedding")

    def _check_range(self, name: str, ids: Sequence[int]) -> None:
        if ids and (min(ids) < 0 or max(ids) >= self._vocab_size):
            raise InvalidInputError(name, f"token ids must be from 0 to {self._vocab_size - 1}")


def _sequence(text: Text, is_split: bool) -> str | tuple[str, str] | list[str] | None:
    """Spell an input as the library takes it; None where it is not of the kind asked for."""
    match text.value:
        case SplitText(words) if is_split:
            return words
        case TextPair(first, second) if not is_split:
            return first, second
        case str(value) if not is_split:
            return text.prompt + value
    return None


def _encoding_of(encoding: tokenizers.Encoding, *, detailed: bool) -> Encoding:
    ids, type_ids = (np.array(values, dtype=np.int32) for values in (encoding.ids, encoding.type_ids))
    if not detailed:
        return Encoding(ids, type_ids)
    special = np.array(encoding.special_tokens_mask, dtype=bool)
    words = np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int32)
    second = type_ids.astype(bool) & (words >= 0)
    if second.any():  # the words of a pair's second text count on from its first's
        words[second] += 1 + words[~second].max(initial=-1)
    return Encoding(ids, type_ids, special, words)


def _encoding_of_ids(ids: Sequence[int]) -> Encoding:
    array = np.array(ids, dtype=np.int32)
    special = np.zeros(len(ids), dtype=bool)
    special[[0, -1]] = True
    return Encoding(array, np.zeros_like(array), special)


def _check_words(name: str, split: list[str], words: Int32Array) -> None:
    """Raise where a word leaves no token, for its row would be missing."""
    missing = np.setdiff1d(np.arange(len(split)), words)
    if len(missing):
        raise InvalidInputError(f"{name}.tokens[{missing[0]}]", "the tokenizer leaves nothing of this word")


def _cut(source: Encoding, table: list[Token] | None, places: IntArray | None) -> Tokenized:
    if places is None:
        return Tokenized(source, truncated=False, table=table)
    return Tokenized(source.take(places), truncated=True, table=table and [table[place] for place in places])


def _table(encoding: tokenizers.Encoding, words: Int32Array | None, prompt: int) -> list[Token]:
    """List the tokens; their places count from the text, those of a prompt of some characters are 0 to 0."""
    assert words is not None, "a table is made of a detailed encoding"
    columns = (encoding.ids, encoding.tokens, encoding.offsets, words.tolist(), encoding.special_tokens_mask)
    return [
        Token(id_, token, max(start - prompt, 0), max(end - prompt, 0), None if word < 0 else word, bool(special))
        for id_, token, (start, end), word, special in zip(*columns, strict=True)
    ]
