"""The one way from texts to vectors: every route comes through `Embedder.embed`."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.errors import DeadlineError, EncoderError, InvalidInputError
from service.inference.runner import Runner
from service.inference.tokenizer import Tokenized, Tokenizer, Truncate
from service.inference.types import Feature, Text, Unit, Vectors

INLINE_CHARS = 4096
"""Texts up to here are tokenized on the event loop, in a millisecond or less."""
CHUNK_TEXTS = 64
CHUNK_CHARS = 1 << 16
"""Bulk is tokenized in chunks of at most so many texts and, but for one long text, characters, so that other requests'
texts come in between."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds a request spent in each stage."""

    tokenize: float
    queue: float
    encode: float


@dataclass(frozen=True, slots=True)
class Embedded:
    """A request's vectors, one list of arrays a text, in the order of its features."""

    vectors: list[Vectors]
    tokens: int
    truncated: int
    timings: Timings


class Embedder:
    """Tokenizer and runner behind one function."""

    def __init__(self, tokenizer: Tokenizer, runner: Runner, *, max_texts: int, max_text_chars: int) -> None:
        self._tokenizer = tokenizer
        self._runner = runner
        self._max_texts = max_texts
        self._max_text_chars = max_text_chars
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")

    async def embed(
        self, texts: Sequence[Text], features: Sequence[Feature], *, truncate: Truncate, deadline: float
    ) -> Embedded:
        """Encode texts, of which there is at least one, before `deadline` (a time of the event loop's clock).

        Raises `InvalidInputError`, `TooLargeError`, `OverloadedError`, `DeadlineError` and `EncoderError`.
        """
        self.check(texts)
        try:
            async with asyncio.timeout_at(deadline):
                started = time.perf_counter()
                tokenized = await self._tokenize(texts, truncate)
                tokenize_seconds = time.perf_counter() - started
                encoded = await self._runner.run([Unit(item.encoding, tuple(features)) for item in tokenized])
        except TimeoutError as error:
            raise DeadlineError("the deadline passed before the vectors were ready") from error
        vectors = []
        for text, result in zip(texts, encoded.results, strict=True):
            if isinstance(result, EncoderError):
                raise EncoderError(f"{text.name}: {result}")
            vectors.append(result)
        return Embedded(
            vectors,
            tokens=sum(len(item.encoding) for item in tokenized),
            truncated=sum(item.truncated for item in tokenized),
            timings=Timings(tokenize_seconds, encoded.queue_seconds, encoded.encode_seconds),
        )

    def check(self, texts: Sequence[Text]) -> None:
        """Raise `InvalidInputError` where there are more texts, or a longer one, than one request may have."""
        if len(texts) > self._max_texts:
            field = texts[0].name.partition("[")[0]
            raise InvalidInputError(field, f"{len(texts)} texts, at most {self._max_texts} in one request")
        for text in texts:
            if len(text.value) > self._max_text_chars:
                raise InvalidInputError(text.name, f"{len(text.value)} characters, at most {self._max_text_chars}")

    async def _tokenize(self, texts: Sequence[Text], truncate: Truncate) -> list[Tokenized]:
        if sum(len(text.value) for text in texts) <= INLINE_CHARS:
            return self._tokenizer.encode(texts, truncate)
        loop = asyncio.get_running_loop()
        tokenized: list[Tokenized] = []
        for chunk in _chunks(texts):
            tokenized += await loop.run_in_executor(self._thread, self._tokenizer.encode, chunk, truncate)
        return tokenized


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
