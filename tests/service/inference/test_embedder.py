"""From texts to vectors: one way in, whatever else is in the queue."""

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from service.errors import DeadlineError, EncoderError, InvalidInputError, TooLargeError
from service.inference.embedder import Embedded, Embedder
from service.inference.encoder import CpuEncoder
from service.inference.runner import Encode, Runner
from service.inference.scheduler import Scheduler
from service.inference.tokenizer import Tokenizer, Truncate
from service.inference.types import Feature, Float32Array, Pooling, Text, TokenIds, Unit, Vectors

SENTENCE = Feature(Pooling.MEAN, (6,), normalize=True)
WORDS = ["harbour", "ship", "rope", "tide", "crane", "quay", "cargo", "pilot", "buoy", "anchor"]

Scenario = Callable[[Embedder], Coroutine[Any, Any, None]]


def play(
    scenario: Scenario, tokenizer: Tokenizer, encode: Encode, *, threads: int = 2, max_queue_tokens: int = 1_000_000
) -> None:
    """Run a scenario with an embedder around an encoder."""

    async def main() -> None:
        runner = Runner(
            encode,
            Scheduler(256),
            threads=threads,
            max_queue_tokens=max_queue_tokens,
            on_batch=lambda _: None,
        )
        runner.start()
        try:
            await scenario(Embedder(tokenizer, runner, max_texts=2000, max_text_chars=100_000))
        finally:
            runner.stop()

    asyncio.run(main())


async def embed(
    embedder: Embedder,
    values: Sequence[str | TokenIds],
    features: Sequence[Feature] = (SENTENCE,),
    truncate: Truncate = "end",
    deadline: float = math.inf,
) -> Embedded:
    texts = [Text(f"input[{index}]", value) for index, value in enumerate(values)]
    return await embedder.embed(texts, features, truncate=truncate, deadline=deadline)


def first_vectors(embedded: Embedded) -> Float32Array:
    return np.stack([vectors[0] for vectors in embedded.vectors])


def sentences(count: int) -> list[str]:
    random = np.random.default_rng(2)
    return [" ".join(random.choice(WORDS, size=random.integers(1, 30))) for _ in range(count)]


def test_text_is_the_same_alone_and_in_any_company(tokenizer: Tokenizer, encoder: CpuEncoder) -> None:
    texts = sentences(60)

    async def scenario(embedder: Embedder) -> None:
        alone = np.concatenate([first_vectors(await embed(embedder, [text])) for text in texts])
        together = first_vectors(await embed(embedder, texts))
        crowd = await asyncio.gather(*(embed(embedder, texts[start:] + texts[:start]) for start in range(0, 60, 12)))
        assert np.abs(alone - together).max() < 1e-5
        for start, each in zip(range(0, 60, 12), crowd, strict=True):
            assert np.abs(np.roll(first_vectors(each), start, axis=0) - alone).max() < 1e-5

    play(scenario, tokenizer, encoder)


def test_requests_for_different_features_share_the_queue(tokenizer: Tokenizer, encoder: CpuEncoder) -> None:
    texts = sentences(20)
    wanted = [Feature(Pooling.CLS, (6,)), Feature(Pooling.MAX, (0,)), SENTENCE]

    async def scenario(embedder: Embedder) -> None:
        separate = [first_vectors(await embed(embedder, texts, [feature])) for feature in wanted]
        at_once = await asyncio.gather(*(embed(embedder, texts, [feature]) for feature in wanted))
        in_one = await embed(embedder, texts, wanted)
        for place, expected in enumerate(separate):
            assert np.abs(first_vectors(at_once[place]) - expected).max() < 1e-4
            assert np.abs(np.stack([vectors[place] for vectors in in_one.vectors]) - expected).max() < 1e-4

    play(scenario, tokenizer, encoder)


def test_ids_and_their_text_are_one(tokenizer: Tokenizer, encoder: CpuEncoder) -> None:
    async def scenario(embedder: Embedder) -> None:
        text, ids = first_vectors(await embed(embedder, ["hello world", TokenIds([101, 7592, 2088, 102])]))
        np.testing.assert_allclose(text, ids, atol=1e-6)

    play(scenario, tokenizer, encoder)


def echo(units: Sequence[Unit]) -> list[Vectors]:
    """Answer each unit with its length."""
    return [[np.array([len(unit)], dtype=np.float32)] for unit in units]


def test_bulk_keeps_its_order_over_all_chunks(tokenizer: Tokenizer) -> None:
    async def scenario(embedder: Embedder) -> None:
        embedded = await embed(embedder, ["hello " * (number % 200 + 1) for number in range(1500)])
        assert first_vectors(embedded)[:, 0].tolist() == [number % 200 + 3 for number in range(1500)]
        assert embedded.tokens == sum(number % 200 + 3 for number in range(1500))
        assert embedded.truncated == 0

    play(scenario, tokenizer, echo)


def test_tokens_are_counted_after_the_cut(tokenizer: Tokenizer) -> None:
    async def scenario(embedder: Embedder) -> None:
        embedded = await embed(embedder, ["hello", "hello " * 500, "hello " * 600])
        assert (embedded.tokens, embedded.truncated) == (3 + 256 + 256, 2)
        assert min(embedded.timings.tokenize, embedded.timings.queue, embedded.timings.encode) >= 0

    play(scenario, tokenizer, echo)


@pytest.mark.parametrize(
    ("values", "truncate", "param"),
    [
        (["a"] * 2001, "end", "input"),
        (["a", "b" * 100_001], "end", "input[1]"),
        (["a", TokenIds([5])], "end", "input[1]"),
        (["a", "hello " * 300], "error", "input[1]"),
        (["hello"] * 200 + ["hello " * 300], "error", "input[200]"),
    ],
    ids=["texts", "characters", "ids", "tokens", "tokens in bulk"],
)
def test_what_cannot_be_encoded_is_named_and_the_next_is_answered(
    tokenizer: Tokenizer, values: list[str | TokenIds], truncate: Truncate, param: str
) -> None:
    async def scenario(embedder: Embedder) -> None:
        with pytest.raises(InvalidInputError) as error:
            await embed(embedder, values, truncate=truncate)
        assert error.value.param == param
        assert len((await embed(embedder, ["next"])).vectors) == 1

    play(scenario, tokenizer, echo)


def test_limits_are_inclusive(tokenizer: Tokenizer) -> None:
    async def scenario(embedder: Embedder) -> None:
        assert len((await embed(embedder, ["a"] * 2000)).vectors) == 2000
        assert (await embed(embedder, ["a" * 100_000])).tokens == 3

    play(scenario, tokenizer, echo)


def test_request_beyond_the_queue_is_too_large(tokenizer: Tokenizer) -> None:
    async def scenario(embedder: Embedder) -> None:
        with pytest.raises(TooLargeError):
            await embed(embedder, ["hello"] * 40)

    play(scenario, tokenizer, echo, max_queue_tokens=100)


def test_error_of_one_text_is_named(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        if any(len(unit) == 9 for unit in units):
            raise RuntimeError("nine")
        return echo(units)

    async def scenario(embedder: Embedder) -> None:
        with pytest.raises(EncoderError, match=r"^input\[1\]: "):
            await embed(embedder, ["hello", "hello " * 7, "hello"])

    play(scenario, tokenizer, encode)


@pytest.mark.parametrize("text", ["hello", "hello " * 2000], ids=["inline", "in the thread"])
def test_deadline_frees_the_queue(tokenizer: Tokenizer, text: str) -> None:
    gate = threading.Event()

    def wait(units: Sequence[Unit]) -> list[Vectors]:
        assert gate.wait(20), "the test opens the gate"
        return echo(units)

    async def scenario(embedder: Embedder) -> None:
        now = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineError):
            await embed(embedder, [text] * 50, deadline=now + 0.2)
        assert embedder._runner.queued_units == 0
        gate.set()
        assert len((await embed(embedder, ["next"])).vectors) == 1

    play(scenario, tokenizer, wait, threads=1)


def test_deadline_that_has_passed_already_is_one_too(tokenizer: Tokenizer) -> None:
    async def scenario(embedder: Embedder) -> None:
        with pytest.raises(DeadlineError):
            await embed(embedder, ["hello"], deadline=0)

    play(scenario, tokenizer, echo)
