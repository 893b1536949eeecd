"""The tokenizer: inputs in, framed encodings out, cut to the model's maximum as the caller wants it."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import tokenizers

from berth.errors import ArtifactError, InvalidInputError
from berth.text.frame import is_framed, places_of_pair, places_of_text, shown
from berth.text.truncation import Cut, Truncation
from berth.types import Encoding, Frame, Int32Array, IntArray, SplitText, Text, TextPair, TokenIds

# The library's own threads would take cores from the encoder; the embedder's thread is one, and bulk goes in chunks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

AT_END = (Cut.END, Cut.ERROR)
"""Cuts that keep a prompt without knowing where it ends."""
PROMPTS = 64
"""Prompts whose numbers of tokens are remembered; a model has a few."""


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

    def __init__(self, path: Path, *, max_tokens: int, vocab_size: int, frame: Frame) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            single, pair = self._tokenizer.encode("a"), self._tokenizer.encode("a", "a")
        except Exception as error:  # the library raises bare Exceptions
            raise ArtifactError(f"{path} cannot be read: {error}") from error
        self._max_tokens = max_tokens
        self._vocab_size = vocab_size
        # Tokens may have been added without rows for them; the export sees to it that all others have one.
        self._has_rows = max(self._tokenizer.get_added_tokens_decoder(), default=0) < vocab_size
        self._frame = frame
        self._before, self._after = len(frame.before), len(frame.after)
        self._takes_pairs = bool(frame.between) or len(set(pair.type_ids)) > 1
        if not is_framed(single.ids, frame) or pair.sequence_ids.count(None) != frame.size(pair=True):
            raise ArtifactError(f"{path} does not frame a text by {shown(frame)}, as the manifest says")
        self._types = single.type_ids
        self._prompt_size = lru_cache(PROMPTS)(self._tokens_of_prompt)

    def encode(
        self, texts: Sequence[Text], truncation: Truncation, *, detailed: bool = False, table: bool = False
    ) -> list[Tokenized | InvalidInputError]:
        """Tokenize, frame and cut inputs; those to be read in windows stay whole. A bad one gives its error.

        `detailed` fills in the encodings' `special` and `words`, `table` the tables too (of token ids there is none).
        """
        results: list[Tokenized | InvalidInputError] = []
        # The places of tokens are computed where a table is made, or where they say which tokens are a prompt's.
        placed = detailed or table or (truncation.cut not in AT_END and any(text.prompt for text in texts))
        for text, encoding in zip(texts, self._encodings(texts, placed), strict=True):
            try:
                source = self._source(text, encoding, truncation, detailed=detailed or table)
                places = self._places(text, source, encoding, truncation)
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

    def framed_ids(self, name: str, tokens: Sequence[str]) -> list[int]:
        """Give the ids of word pieces in the frame; a piece that the vocabulary has not is the unknown token.

        Raises `InvalidInputError`, which names the piece, where the tokenizer has none.
        """
        ids = []
        for place, token in enumerate(tokens):
            known = self._tokenizer.token_to_id(token)
            id_ = self._unknown if known is None else known
            if id_ is None:
                message = f"{token!r} is not in the vocabulary, which has no unknown token"
                raise InvalidInputError(f"{name}[{place}]", message)
            ids.append(id_)
        return [*self._frame.before, *ids, *self._frame.after]

    def decode(self, name: str, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Turn ids back into a text, as far as the vocabulary keeps it."""
        self._check_range(name, ids)
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    @cached_property
    def _unknown(self) -> int | None:
        """Give the id of the unknown token, None where there is none."""
        model = self._tokenizer.model
        if isinstance(model, tokenizers.models.Unigram):  # whose object does not tell it
            unknown: int | None = json.loads(self._tokenizer.to_str())["model"]["unk_id"]
            return unknown
        return None if model.unk_token is None else self._tokenizer.token_to_id(model.unk_token)

    def _encodings(self, texts: Sequence[Text], placed: bool) -> list[tokenizers.Encoding | None]:
        """Let the library encode strings, pairs and split texts; None for token ids."""
        encode = self._tokenizer.encode_batch if placed else self._tokenizer.encode_batch_fast
        encodings: list[tokenizers.Encoding | None] = [None] * len(texts)
        for is_split in (False, True):
            sequences = {
                index: found for index, text in enumerate(texts) if (found := _sequence(text, is_split)) is not None
            }
            if sequences:
                batch = encode(list(sequences.values()), is_pretokenized=is_split)
                for index, encoding in zip(sequences, batch, strict=True):
                    encodings[index] = encoding
        return encodings

    def _source(
        self, text: Text, encoding: tokenizers.Encoding | None, truncation: Truncation, *, detailed: bool
    ) -> Encoding:
        """Give an input's encoding, uncut."""
        match text.value:
            case TokenIds(ids):
                self._check_ids(text.name, ids)
                return self._encoding_of_ids(ids)
            case TextPair() if not self._takes_pairs:
                raise InvalidInputError(text.name, "the model takes no pairs: nothing tells one text from the other")
        assert encoding is not None, "the library encodes all but token ids"
        if not self._has_rows:
            self._check_rows(text.name, encoding)
        prompt = self._prompt(text, encoding, truncation) if text.prompt else 0
        source = _encoding_of(encoding, detailed=detailed, prompt=prompt)
        if isinstance(text.value, SplitText) and source.words is not None:
            _check_words(text.name, text.value.words, source.words)
        return source

    def _encoding_of_ids(self, ids: Sequence[int]) -> Encoding:
        """Mark the frame's places, and give them the types that the tokenizer gives them."""
        before, end = self._before, len(ids) - self._after
        special = np.ones(len(ids), dtype=bool)
        special[before:end] = False
        own = self._types[before] if len(self._types) > self._frame.size() else 0
        type_ids = np.full(len(ids), own, dtype=np.int32)
        type_ids[:before] = self._types[:before]
        type_ids[end:] = self._types[len(self._types) - self._after :]
        return Encoding(np.array(ids, dtype=np.int32), type_ids, special)

    def _prompt(self, text: Text, encoding: tokenizers.Encoding, truncation: Truncation) -> int:
        """Count the leading tokens that are the frame's and the prompt's.

        They are as many as sentence-transformers counts where the text fits, or is cut at its end, as there. Otherwise
        they are those that lie in the prompt or begin in it, the blanks at its end apart. Raises `InvalidInputError`
        where a text that is too long has no room beside them.
        """
        limit = truncation.window or self._max_tokens
        if len(encoding) <= limit or truncation.cut is Cut.ERROR:
            return self._prompt_size(text.prompt)
        if truncation.cut is Cut.END:
            count = self._prompt_size(text.prompt)
        else:
            count = self._before + self._leading(encoding, text.prompt)
        room = limit - count - self._after
        if room < 1:
            whose = "a window" if truncation.window else "the model"
            message = f"its prompt and frame are {count + self._after} tokens and leave no room: {whose} takes {limit}"
            raise InvalidInputError(text.name, message)
        if truncation.stride > room:
            message = f"truncate.stride must be at most {room}, what a window of {limit} has beside prompt and frame"
            raise InvalidInputError(text.name, message)
        return count

    def _tokens_of_prompt(self, prompt: str) -> int:
        """Count the tokens of a prompt alone in its frame, without the last special one, as sentence-transformers."""
        return len(self._tokenizer.encode(prompt)) - min(self._after, 1)

    def _leading(self, encoding: tokenizers.Encoding, prompt: str) -> int:
        """Count the tokens of the text's beginning that are the prompt's, by their places."""
        visible, end = len(prompt.rstrip()), len(prompt)
        for row in range(self._before, len(encoding) - self._after):
            first, last = encoding.token_to_chars(row) or (end, end)
            if not (first < visible or first < end >= last):
                return row - self._before
        return len(encoding) - self._frame.size()

    def _places(
        self, text: Text, source: Encoding, encoding: tokenizers.Encoding | None, truncation: Truncation
    ) -> IntArray | None:
        """Give the places of the tokens that are kept, None where all are."""
        total, pair = len(source.ids), isinstance(text.value, TextPair)
        limit = truncation.window or self._max_tokens if pair else self._max_tokens
        if total <= limit or (truncation.cut is Cut.WINDOW and not pair):
            return None
        if truncation.cut is Cut.ERROR:
            raise InvalidInputError(text.name, f"{total} tokens, the model takes {self._max_tokens}")
        if not pair:
            return places_of_text(total, source.prompt or self._before, self._frame, self._max_tokens, truncation)
        if truncation.cut not in (Cut.END, Cut.START):
            raise InvalidInputError(text.name, f"{total} tokens: a pair can be cut at `end` or `start` alone")
        around = self._frame.size(pair=True)
        if around > self._max_tokens:
            message = f"a pair has {around} special tokens, the model takes {self._max_tokens}"
            raise InvalidInputError(text.name, message)
        assert encoding is not None, "the library encodes pairs"
        return places_of_pair(total, encoding.sequence_ids.count(0), self._frame, self._max_tokens, truncation)

    def _check_ids(self, name: str, ids: Sequence[int]) -> None:
        if not is_framed(ids, self._frame):
            raise InvalidInputError(
                name,
                f"token ids must be this model's own, framed as /v1/tokenize gives them: {shown(self._frame)}. "
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


def _encoding_of(encoding: tokenizers.Encoding, *, detailed: bool, prompt: int = 0) -> Encoding:
    ids, type_ids = (np.array(values, dtype=np.int32) for values in (encoding.ids, encoding.type_ids))
    if not detailed:
        return Encoding(ids, type_ids, prompt=prompt)
    special = np.array(encoding.special_tokens_mask, dtype=bool)
    words = np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int32)
    if encoding.n_sequences > 1:  # the words of a pair's second text count on from its first's
        second = np.array([text == 1 for text in encoding.sequence_ids]) & (words >= 0)
        words[second] += 1 + words[~second].max(initial=-1)
    return Encoding(ids, type_ids, special, words, prompt)


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
