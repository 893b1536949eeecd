"""The one way from texts to vectors: every route comes through `Embedder.embed`."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from service.errors import BerthError, DeadlineError, EncoderError, InvalidInputError
from service.inference.artifact import Manifest
from service.inference.reading import Item, Reading, Wish, cost, read
from service.inference.runner import Encoded, Runner
from service.inference.tokenizer import Token, Tokenized, Tokenizer
from service.inference.types import Text, TokenIds, Vectors

T = TypeVar("T")

CLOCK_TICK = 1e-3
"""Seconds: uvloop's clock counts milliseconds, so a deadline nearer than that has passed."""
INLINE_SIZE = 2048
"""Characters of a request to tokenize, or tokens to lay out in windows, up to which it is done on the event loop, in a
millisecond or two."""
TABLE_COST = 3
"""Times as long as tokenizing alone that a table of the tokens takes."""
CHUNK_TEXTS = 64
CHUNK_CHARS = 1 << 16
"""Bulk is tokenized in chunks of at most so many texts and, but for one long text, characters, so that other requests'
texts come in between."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may ask for."""

    texts: int
    text_chars: int
    reply_numbers: int
    tokens: int | None = None
    table_tokens: int = 1 << 20

    def check_count(self, field: str, count: int) -> None:
        """Raise `InvalidInputError` where a field has more texts than one request may have."""
        if count > self.texts:
            raise InvalidInputError(field, f"{count} inputs, at most {self.texts} in one request")


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds a request spent in each stage, one after the other, and when the first began (by `perf_counter`)."""

    tokenize: float
    queue: float
    encode: float
    started: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A request's answer, one item an input, or the input's error where the request wants errors reported."""

    items: list[Item | BerthError]
    tokens: int
    cached: int
    timings: Timings

    @property
    def answered(self) -> list[Item]:
        """Give the items that are no errors; all of them where the request did not want errors reported."""
        return [item for item in self.items if isinstance(item, Item)]

    @property
    def usage(self) -> dict[str, int]:
        """Count the tokens as OpenAI's API does."""
        return {"prompt_tokens": self.tokens, "total_tokens": self.tokens}

    @property
    def truncated(self) -> int:
        """Count the inputs of which something was cut off."""
        return sum(item.truncated for item in self.answered)


class Embedder:
    """Tokenizer and runner behind one function."""

    def __init__(self, tokenizer: Tokenizer, runner: Runner, manifest: Manifest, limits: Limits) -> None:
        self._tokenizer = tokenizer
        self._runner = runner
        self._manifest = manifest
        self.limits = limits
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")

    async def embed(
        self, texts: Sequence[Text], wish: Wish, *, deadline: float, charge: Callable[[int], None] | None = None
    ) -> Embedded:
        """Encode inputs, of which there is at least one.

        What cannot be done before `deadline` (a time of the event loop's clock) is turned away; it is the caller who
        ends what is not done by then. `charge` is told how many tokens are about to be queued, and may raise.
        Raises `InvalidInputError`, `TooLargeError`, `OverloadedError`, `DeadlineError` and `EncoderError`.
        """
        started = time.perf_counter()
        inputs = await self._read(texts, wish)
        units = [unit for item in inputs if isinstance(item, Reading) for unit in item.units]
        tokenize_seconds = time.perf_counter() - started
        seconds = deadline - asyncio.get_running_loop().time()
        if seconds <= CLOCK_TICK:
            raise DeadlineError("the deadline passed before the answer was ready")
        encoded = await self._runner.run(units, seconds=seconds, charge=charge) if units else Encoded([])
        tokens = sum(map(len, units))
        answers = partial(_answers, inputs, encoded.results)
        # Not in the tokenizer's thread, where it would wait behind what other requests have only begun with.
        items = await asyncio.to_thread(answers) if wish.windowed and tokens > INLINE_SIZE else answers()
        if not wish.report:
            _raise_first(items)
        timings = Timings(tokenize_seconds, encoded.queue_seconds, encoded.encode_seconds, started)
        return Embedded(items, tokens, encoded.cached, timings)

    def check(self, texts: Sequence[Text]) -> None:
        """Raise `InvalidInputError` where there are more texts, or a longer one, than one request may have."""
        self.limits.check_count(_field(texts[0]), len(texts))
        _raise_first([self._error_of(text) for text in texts])

    async def _read(self, texts: Sequence[Text], wish: Wish) -> list[Reading | InvalidInputError]:
        """Tokenize the inputs; a bad one is its error, or the request's where it does not want errors reported."""
        self.limits.check_count(_field(texts[0]), len(texts))
        errors = [self._error_of(text) for text in texts]
        if not wish.report:
            _raise_first(errors)
        good = [text for text, error in zip(texts, errors, strict=True) if error is None]
        readings = iter(await self._read_good(good, wish))
        inputs = [error or next(readings) for error in errors]
        if not wish.report:
            _raise_first(inputs)
        self._check_reply(inputs, wish)
        return inputs

    async def _read_good(self, texts: Sequence[Text], wish: Wish) -> list[Reading | InvalidInputError]:
        """Tokenize, and stop as soon as there is more than the queue takes: windows can multiply a text."""
        inputs: list[Reading | InvalidInputError] = []
        tokens, size = 0, _size(texts)
        for chunk in _chunks(texts):
            tokenized = await self._off_loop(size, partial(self._encode, chunk, wish))
            tokens += sum(
                cost(item, wish, self._manifest.max_tokens) for item in tokenized if isinstance(item, Tokenized)
            )
            self._check_tokens(texts, tokens)
            self._runner.admit(max(len(texts), tokens // self._manifest.max_tokens), tokens)
            readings = partial(self._readings, chunk, tokenized, wish)
            inputs += await self._off_loop(tokens if wish.windowed else 0, readings)
        return inputs

    async def tables(self, texts: Sequence[Text], *, add_special_tokens: bool) -> list[list[Token]]:
        """Tokenize texts into tables, uncut; raises `InvalidInputError`."""
        self.check(texts)
        tables: list[list[Token]] = []
        tokens, size = 0, TABLE_COST * _size(texts)
        for chunk in _chunks(texts):
            tabulated = partial(self._tables, chunk, add_special_tokens=add_special_tokens)
            tables += await self._off_loop(size, tabulated)
            tokens += sum(map(len, tables[-len(chunk) :]))
            if tokens > self.limits.table_tokens:
                field = _field(texts[0])
                raise InvalidInputError(field, f"more than {self.limits.table_tokens} tokens in one request")
        return tables

    def _tables(self, texts: Sequence[Text], *, add_special_tokens: bool) -> list[list[Token]]:
        return [self._tokenizer.tokens(text, add_special_tokens=add_special_tokens) for text in texts]

    async def _off_loop(self, size: int, function: Callable[[], T]) -> T:
        """Call a function in the tokenizer's thread, or here where the request's work is small.

        It is the whole request's that counts, of which the function may do a part: parts that are done here, one after
        the other, leave no turn of the event loop to others.
        """
        if size <= INLINE_SIZE:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _encode(self, texts: Sequence[Text], wish: Wish) -> list[Tokenized | InvalidInputError]:
        return self._tokenizer.encode(texts, wish.truncation, detailed=wish.detailed, table=wish.table)

    def _readings(
        self, texts: Sequence[Text], tokenized: Sequence[Tokenized | InvalidInputError], wish: Wish
    ) -> list[Reading | InvalidInputError]:
        return [self._reading(*pair, wish) for pair in zip(texts, tokenized, strict=True)]

    def _reading(self, text: Text, tokenized: Tokenized | InvalidInputError, wish: Wish) -> Reading | InvalidInputError:
        if isinstance(tokenized, InvalidInputError):
            return tokenized
        try:
            return read(text.name, wish, tokenized, self._manifest.max_tokens)
        except InvalidInputError as error:
            return error

    def _error_of(self, text: Text) -> InvalidInputError | None:
        length = len(text.value)
        if not length:
            return InvalidInputError(text.name, "must not be empty")
        if length > self.limits.text_chars:
            noun = "token ids" if isinstance(text.value, TokenIds) else "characters"
            return InvalidInputError(text.name, f"{length} {noun}, at most {self.limits.text_chars}")
        return None

    def _check_tokens(self, texts: Sequence[Text], tokens: int) -> None:
        if self.limits.tokens is not None and tokens > self.limits.tokens:
            raise InvalidInputError(_field(texts[0]), f"more than {self.limits.tokens} tokens in one request")

    def _check_reply(self, inputs: Sequence[Reading | InvalidInputError], wish: Wish) -> None:
        if wish.limited is None:
            return
        numbers = sum(item.numbers(self._manifest.hidden_size) for item in inputs if isinstance(item, Reading))
        if numbers > self.limits.reply_numbers:
            limit = self.limits.reply_numbers
            raise InvalidInputError(wish.limited, f"the vectors would hold {numbers} numbers, at most {limit}")


def _field(text: Text) -> str:
    """Name the field that a text is in."""
    return text.name.partition("[")[0]


def _raise_first(outcomes: Iterable[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BerthError):
            raise outcome


def _answers(
    inputs: Iterable[Reading | InvalidInputError], results: Iterable[Vectors | EncoderError]
) -> list[Item | BerthError]:
    left = iter(results)
    return [item.answer(left) if isinstance(item, Reading) else item for item in inputs]


def _size(texts: Iterable[Text]) -> int:
    return sum(len(text.value) for text in texts)


def _chunks(texts: Sequence[Text]) -> Iterator[list[Text]]:
    chunk: list[Text] = []
    chars = 0
    for text in texts:
        if len(chunk) == CHUNK_TEXTS or (chunk and chars + len(text.value) > CHUNK_CHARS):
            yield chunk
            chunk, chars = [], 0
        chunk.append(text)
        chars += len(text.value)
    if chunk:
        yield chunk
