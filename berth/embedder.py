"""The one way from texts to vectors: every route comes through `Embedder.embed`."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from berth.batching.admission import Limits
from berth.batching.worker import Encoded, ModelLane, Worker
from berth.errors import BerthError, DeadlineError, EncoderError, InvalidInputError
from berth.model import Model
from berth.text.prepared import EncodeOptions, Item, PreparedText, prepare
from berth.text.tokenizer import Token, Tokenized
from berth.text.windows import tokens_read
from berth.types import Text, Vectors

T = TypeVar("T")

CLOCK_TICK = 1e-3
"""Seconds: uvloop's clock counts milliseconds, so a deadline nearer than that has passed."""
INLINE_SIZE = 2048
"""Characters of a request to tokenize, or tokens whose windows' vectors are put together, up to which it is done on the
event loop, in a millisecond or two."""
TABLE_COST = 3
"""Times as long as tokenizing alone that a table of the tokens takes."""
MOST_POOLED = 2
"""Times the hidden size that a pooled layer may be wide, by `mean_max`."""
CHUNK_TEXTS = 64
CHUNK_CHARS = 1 << 16
"""Bulk is tokenized in chunks of at most so many texts and, but for one long text, characters, so that other requests'
texts come in between."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A request's answer, one item an input, or the input's error where errors are to be reported."""

    items: list[Item | BerthError]
    answered: list[Item]
    """The items that are no errors; all of them where errors were not to be reported."""
    tokens: int
    truncated: int
    """Inputs of which something was cut off."""
    cached: int
    stages: dict[str, float]
    """Seconds spent in each stage, one after the other: `tokenize`, `queue`, `encode`."""
    started: float = 0.0
    """When the first one began, by `perf_counter`."""

    @property
    def usage(self) -> dict[str, int]:
        """Count the tokens as OpenAI's API does."""
        return {"prompt_tokens": self.tokens, "total_tokens": self.tokens}


class Embedder:
    """A model's tokenizer, and its lane of the worker's queue, behind one function."""

    def __init__(self, model: Model, worker: Worker, lane: ModelLane, limits: Limits) -> None:
        self.limits = limits
        self._tokenizer = model.tokenizer
        self._max_tokens = model.manifest.max_tokens
        self._frame = model.manifest.frame
        self._hidden_size = model.manifest.hidden_size
        poolings = 1 + len(model.manifest.further_poolings)
        self._widest = max(MOST_POOLED * poolings * self._hidden_size, model.manifest.projected)
        self._worker = worker
        self._lane = lane
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")

    async def embed(
        self,
        texts: Sequence[Text],
        options: EncodeOptions,
        *,
        deadline: float,
        charge: Callable[[int], None] | None = None,
    ) -> Embedded:
        """Encode inputs, of which there is at least one.

        What cannot be done before `deadline` (a time of the event loop's clock) is turned away; it is the caller who
        ends what is not done by then. `charge` is told how many tokens are about to be queued, and may raise.
        Raises `InvalidInputError`, `TooLargeError`, `OverloadedError`, `DeadlineError` and `EncoderError`.
        """
        started = time.perf_counter()
        inputs = await self._prepare(texts, options)
        sequences = [sequence for item in inputs if isinstance(item, PreparedText) for sequence in item.sequences]
        tokenize_seconds = time.perf_counter() - started
        seconds = deadline - asyncio.get_running_loop().time()
        if seconds <= CLOCK_TICK:
            raise DeadlineError("the deadline passed before the answer was ready")
        encoded = (
            await self._worker.run(self._lane, sequences, seconds=seconds, charge=charge) if sequences else Encoded([])
        )
        tokens = sum([item.tokens for item in inputs if isinstance(item, PreparedText)])
        answers = partial(_answers, inputs, encoded.results)
        # Not in the tokenizer's thread: there it would wait for the tokenization of requests that came later.
        items = await asyncio.to_thread(answers) if tokens > INLINE_SIZE and options.windowed else answers()
        if not options.report:
            _raise_first(items)
        answered = [item for item in items if isinstance(item, Item)]
        truncated = sum([item.truncated for item in answered])
        stages = {"tokenize": tokenize_seconds, "queue": encoded.queue_seconds, "encode": encoded.encode_seconds}
        return Embedded(items, answered, tokens, truncated, encoded.cached, stages, started)

    async def _prepare(self, texts: Sequence[Text], options: EncodeOptions) -> list[PreparedText | InvalidInputError]:
        """Tokenize the inputs; a bad one is its error, or the request's where errors are not to be reported."""
        self.limits.check(_field(texts[0]), texts, report=options.report)
        inputs: list[PreparedText | InvalidInputError] = []
        tokens, size, cut = 0, _size(texts), options.truncation
        if options.windowed:  # which repeat what they overlap in
            size = size * cut.window // (cut.stride or cut.window)
        for chunk in _chunks(texts):
            if tokens > self._lane.max_batch_tokens:
                self._worker.admission.check_bulk(tokens)
            inputs += await self._off_loop(size, partial(self._prepare_chunk, chunk, options, tokens))
            tokens = sum([item.tokens for item in inputs if isinstance(item, PreparedText)])
        self._check_reply(inputs, tokens, options)
        return inputs

    def _prepare_chunk(
        self, texts: Sequence[Text], options: EncodeOptions, before: int
    ) -> list[PreparedText | InvalidInputError]:
        """Prepare some of a request's inputs, those before which have so many tokens."""
        errors = [self.limits.error_of(text) if options.report else None for text in texts]  # else there is none
        good = [text for text, error in zip(texts, errors, strict=True) if error is None]
        encode = self._tokenizer.encode
        tokenized = iter(encode(good, options.truncation, detailed=options.detailed, table=options.table))
        outcomes = [error or next(tokenized) for error in errors]
        tokens = before + self._tokens_of(outcomes, options)
        self.limits.check_tokens(_field(texts[0]), tokens)
        if options.windowed:  # before they are laid out; of others the queue is asked next
            self._worker.admission.check_size(tokens)
        inputs = [self._prepared(text, item, options) for text, item in zip(texts, outcomes, strict=True)]
        if not options.report:
            _raise_first(inputs)
        return inputs

    def _prepared(
        self, text: Text, item: Tokenized | InvalidInputError, options: EncodeOptions
    ) -> PreparedText | InvalidInputError:
        if isinstance(item, InvalidInputError):
            return item
        try:
            return prepare(text.name, options, item, self._max_tokens, self._frame)
        except InvalidInputError as error:
            return error

    async def tables(self, texts: Sequence[Text], *, add_special_tokens: bool) -> list[list[Token]]:
        """Tokenize texts into tables, uncut; raises `InvalidInputError`."""
        self.limits.check(_field(texts[0]), texts)
        tables: list[list[Token]] = []
        tokens, size = 0, TABLE_COST * _size(texts)
        for chunk in _chunks(texts):
            tabulated = partial(self._tables, chunk, add_special_tokens=add_special_tokens)
            tables += await self._off_loop(size, tabulated)
            tokens += sum(map(len, tables[-len(chunk) :]))
            self.limits.check_tokens(_field(texts[0]), tokens, table=True)
        return tables

    def _tables(self, texts: Sequence[Text], *, add_special_tokens: bool) -> list[list[Token]]:
        return [self._tokenizer.tokens(text, add_special_tokens=add_special_tokens) for text in texts]

    async def _off_loop(self, size: int, function: Callable[[], T]) -> T:
        """Call a function in the tokenizer's thread, or here where `size`, the whole request's, is small.

        The size of one chunk would not do: small chunks called here one after the other would block the event loop.
        """
        if size <= INLINE_SIZE:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _tokens_of(self, tokenized: Sequence[Tokenized | InvalidInputError], options: EncodeOptions) -> int:
        """Count the tokens that the encoder will read, those of all windows."""
        encodings = [item.encoding for item in tokenized if isinstance(item, Tokenized)]
        if options.windowed:
            size = self._max_tokens, self._frame
            return sum([tokens_read(encoding, options.truncation, *size) for encoding in encodings])
        return sum([len(encoding.ids) for encoding in encodings])

    def _check_reply(
        self, inputs: Sequence[PreparedText | InvalidInputError], tokens: int, options: EncodeOptions
    ) -> None:
        layers = sum([len(feature.layers) for feature in options.features])
        if options.limited is None or tokens * layers * self._widest <= self.limits.reply_numbers:
            return  # even if each token had a vector
        numbers = sum(item.numbers(self._hidden_size) for item in inputs if isinstance(item, PreparedText))
        self.limits.check_reply(options.limited, numbers)


def _field(text: Text) -> str:
    """Name the field that a text is in."""
    return text.name.partition("[")[0]


def _raise_first(outcomes: Iterable[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BerthError):
            raise outcome


def _answers(
    inputs: Iterable[PreparedText | InvalidInputError], results: Iterable[Vectors | EncoderError]
) -> list[Item | BerthError]:
    left = iter(results)
    return [item.answer(left) if isinstance(item, PreparedText) else item for item in inputs]


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
