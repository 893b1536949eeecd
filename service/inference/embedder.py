"""The one way from texts to vectors: every route comes through `Embedder.embed`."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.errors import BerthError, DeadlineError, InvalidInputError
from service.inference.artifact import Manifest
from service.inference.reading import Item, Reading, Wish, read
from service.inference.runner import Encoded, Runner
from service.inference.tokenizer import Tokenized, Tokenizer
from service.inference.types import Text

INLINE_CHARS = 4096
"""Texts up to here are tokenized on the event loop, in a millisecond or less."""
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


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds a request spent in each stage."""

    tokenize: float
    queue: float
    encode: float


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
        self._limits = limits
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")

    async def embed(self, texts: Sequence[Text], wish: Wish, *, deadline: float) -> Embedded:
        """Encode inputs, of which there is at least one, before `deadline` (a time of the event loop's clock).

        Raises `InvalidInputError`, `TooLargeError`, `OverloadedError`, `DeadlineError` and `EncoderError`.
        """
        started = time.perf_counter()
        try:
            async with asyncio.timeout_at(deadline):
                inputs = await self._read(texts, wish)
                units = [unit for item in inputs if isinstance(item, Reading) for unit in item.units]
                tokenize_seconds = time.perf_counter() - started
                seconds = deadline - asyncio.get_running_loop().time()
                encoded = await self._runner.run(units, seconds=seconds) if units else Encoded([])
        except TimeoutError as error:
            raise DeadlineError("the deadline passed before the vectors were ready") from error
        results = iter(encoded.results)
        items: list[Item | BerthError] = [
            item.answer(results) if isinstance(item, Reading) else item for item in inputs
        ]
        if not wish.report:
            _raise_first(items)
        timings = Timings(tokenize_seconds, encoded.queue_seconds, encoded.encode_seconds)
        return Embedded(items, sum(map(len, units)), encoded.cached, timings)

    def check(self, texts: Sequence[Text]) -> None:
        """Raise `InvalidInputError` where there are more texts, or a longer one, than one request may have."""
        self.check_count(texts[0].name.partition("[")[0], len(texts))
        _raise_first([self._error_of(text) for text in texts])

    def check_count(self, field: str, count: int) -> None:
        """Raise `InvalidInputError` where there are more inputs than one request may have."""
        if count > self._limits.texts:
            raise InvalidInputError(field, f"{count} inputs, at most {self._limits.texts} in one request")

    async def _read(self, texts: Sequence[Text], wish: Wish) -> list[Reading | InvalidInputError]:
        """Tokenize the inputs; a bad one is its error, or the request's where it does not want errors reported."""
        self.check_count(texts[0].name.partition("[")[0], len(texts))
        errors = [self._error_of(text) for text in texts]
        if not wish.report:
            _raise_first(errors)
        good = [text for text, error in zip(texts, errors, strict=True) if error is None]
        tokenized = iter(await self._tokenize(good, wish))
        inputs = [
            error or self._reading(text, next(tokenized), wish) for text, error in zip(texts, errors, strict=True)
        ]
        if not wish.report:
            _raise_first(inputs)
        self._check_reply(inputs, wish)
        return inputs

    def _reading(self, text: Text, tokenized: Tokenized | InvalidInputError, wish: Wish) -> Reading | InvalidInputError:
        if isinstance(tokenized, InvalidInputError):
            return tokenized
        try:
            return read(text.name, wish, tokenized, self._manifest.max_tokens)
        except InvalidInputError as error:
            return error

    async def _tokenize(self, texts: Sequence[Text], wish: Wish) -> list[Tokenized | InvalidInputError]:
        def encode(some: Sequence[Text]) -> list[Tokenized | InvalidInputError]:
            return self._tokenizer.encode(some, wish.truncation, detailed=wish.detailed, table=wish.table)

        if sum(len(text.value) for text in texts) <= INLINE_CHARS:
            return encode(texts)
        loop = asyncio.get_running_loop()
        tokenized: list[Tokenized | InvalidInputError] = []
        for chunk in _chunks(texts):
            tokenized += await loop.run_in_executor(self._thread, encode, chunk)
        return tokenized

    def _error_of(self, text: Text) -> InvalidInputError | None:
        length = len(text.value)
        if not length:
            return InvalidInputError(text.name, "must not be empty")
        if length > self._limits.text_chars:
            return InvalidInputError(text.name, f"{length} characters, at most {self._limits.text_chars}")
        return None

    def _check_reply(self, inputs: Sequence[Reading | InvalidInputError], wish: Wish) -> None:
        if wish.limited is None:
            return
        numbers = sum(item.numbers(self._manifest.hidden_size) for item in inputs if isinstance(item, Reading))
        if numbers > self._limits.reply_numbers:
            limit = self._limits.reply_numbers
            raise InvalidInputError(wish.limited, f"the reply would hold {numbers} numbers, at most {limit}")


def _raise_first(outcomes: Iterable[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BerthError):
            raise outcome


def _chunks(texts: Sequence[Text]) -> Iterator[list[Text]]:
    chunk: list[Text] = []
    chars = 0
    for text in texts:
        if len(chunk) == CHUNK_TEXTS or (chunk and chars + len(text.value) > CHUNK_CHARS):
            yield chunk
            chunk, chars = [], 0
        chunk.append(text)
        chars += len(text.value)
    yield chunk
