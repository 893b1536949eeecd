"""From texts to vectors: one way in, whatever else is in the queue."""

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from berth.artifact import Artifact
from berth.backends.cpu.encoder import CpuEncoder
from berth.batching.admission import Limits
from berth.batching.queue import Priority
from berth.batching.run import BatchRun
from berth.batching.worker import ModelLane, Worker
from berth.contract import Backend, Encode, FakeEncoder
from berth.embedder import Embedded, Embedder
from berth.errors import (
    DeadlineError,
    EncoderError,
    InvalidInputError,
    OverloadedError,
    RateLimitError,
    TooLargeError,
)
from berth.model import Model
from berth.text.prepared import EncodeOptions, Item
from berth.text.tokenizer import Tokenizer
from berth.text.truncation import Cut, Truncation
from berth.types import Float32Array, Pooling, ResolvedFeature, SplitText, Text, TokenIds, TokenSequence, Vectors
from tests.berth.batching.playing import Gate, entered, until

SENTENCE = ResolvedFeature(Pooling.MEAN, (6,), normalize=True)
WORDS = ["harbour", "ship", "rope", "tide", "crane", "quay", "cargo", "pilot", "buoy", "anchor"]

Scenario = Callable[[Embedder, Worker], Coroutine[Any, Any, None]]


def play(
    scenario: Scenario,
    artifact: Artifact,
    tokenizer: Tokenizer,
    encode: Encode | Backend,
    *,
    threads: int = 2,
    max_queue_tokens: int = 1_000_000,
    on_batch: Callable[[BatchRun], None] = lambda _: None,
) -> None:
    """Run a scenario with an embedder around a backend, or a function that encodes."""
    backend = FakeEncoder(encode) if callable(encode) else encode
    model = Model(artifact.manifest, tokenizer, [backend])

    async def main() -> None:
        worker = Worker(threads=threads, max_queue_tokens=max_queue_tokens, on_batch=on_batch)
        worker.start()
        try:
            limits = Limits(texts=2000, text_chars=100_000, reply_numbers=1_000_000)
            await scenario(Embedder(model, worker, ModelLane(256, backends=model.backends), limits), worker)
        finally:
            worker.stop()

    asyncio.run(main())


async def embed(
    embedder: Embedder,
    values: Sequence[str | TokenIds],
    features: Sequence[ResolvedFeature] = (SENTENCE,),
    cut: Cut = Cut.END,
    deadline: float = math.inf,
) -> Embedded:
    texts = [Text(f"input[{index}]", value) for index, value in enumerate(values)]
    return await embedder.embed(texts, EncodeOptions(tuple(features), Truncation(cut)), deadline=deadline)


def first_vectors(embedded: Embedded) -> Float32Array:
    return np.stack([item.vectors[0] for item in embedded.answered])


def sentences(count: int) -> list[str]:
    random = np.random.default_rng(2)
    return [" ".join(random.choice(WORDS, size=random.integers(1, 30))) for _ in range(count)]


def test_text_is_the_same_alone_and_in_any_company(
    artifact: Artifact, tokenizer: Tokenizer, encoder: CpuEncoder
) -> None:
    texts = sentences(60)

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        alone = np.concatenate([first_vectors(await embed(embedder, [text])) for text in texts])
        together = first_vectors(await embed(embedder, texts))
        crowd = await asyncio.gather(*(embed(embedder, texts[start:] + texts[:start]) for start in range(0, 60, 12)))
        assert np.abs(alone - together).max() < 1e-5
        for start, each in zip(range(0, 60, 12), crowd, strict=True):
            assert np.abs(np.roll(first_vectors(each), start, axis=0) - alone).max() < 1e-5

    play(scenario, artifact, tokenizer, encoder)


def test_requests_for_different_features_share_the_queue(
    artifact: Artifact, tokenizer: Tokenizer, encoder: CpuEncoder
) -> None:
    texts = sentences(20)
    wanted = [ResolvedFeature(Pooling.CLS, (6,)), ResolvedFeature(Pooling.MAX, (0,)), SENTENCE]

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        separate = [first_vectors(await embed(embedder, texts, [feature])) for feature in wanted]
        at_once = await asyncio.gather(*(embed(embedder, texts, [feature]) for feature in wanted))
        in_one = await embed(embedder, texts, wanted)
        for place, expected in enumerate(separate):
            assert np.abs(first_vectors(at_once[place]) - expected).max() < 1e-4
            assert np.abs(np.stack([item.vectors[place] for item in in_one.answered]) - expected).max() < 1e-4

    play(scenario, artifact, tokenizer, encoder)


def test_ids_and_their_text_are_one(artifact: Artifact, tokenizer: Tokenizer, encoder: CpuEncoder) -> None:
    async def scenario(embedder: Embedder, worker: Worker) -> None:
        text, ids = first_vectors(await embed(embedder, ["hello world", TokenIds([101, 7592, 2088, 102])]))
        np.testing.assert_allclose(text, ids, atol=1e-6)

    play(scenario, artifact, tokenizer, encoder)


def echo(sequences: Sequence[TokenSequence]) -> list[Vectors]:
    """Answer each sequence with its length."""
    return [[np.array([len(sequence)], dtype=np.float32)] for sequence in sequences]


def test_bulk_keeps_its_order_over_all_chunks(artifact: Artifact, tokenizer: Tokenizer) -> None:
    async def scenario(embedder: Embedder, worker: Worker) -> None:
        embedded = await embed(embedder, ["hello " * (number % 200 + 1) for number in range(1500)])
        assert first_vectors(embedded)[:, 0].tolist() == [number % 200 + 3 for number in range(1500)]
        assert embedded.tokens == sum(number % 200 + 3 for number in range(1500))
        assert embedded.truncated == 0

    play(scenario, artifact, tokenizer, echo)


def test_tokens_are_counted_after_the_cut(artifact: Artifact, tokenizer: Tokenizer) -> None:
    async def scenario(embedder: Embedder, worker: Worker) -> None:
        embedded = await embed(embedder, ["hello", "hello " * 500, "hello " * 600])
        assert (embedded.tokens, embedded.truncated) == (3 + 256 + 256, 2)
        assert min(embedded.stages.values()) >= 0
        assert list(embedded.stages) == ["tokenize", "queue", "encode"]

    play(scenario, artifact, tokenizer, echo)


@pytest.mark.parametrize(
    ("values", "cut", "param"),
    [
        (["a"] * 2001, Cut.END, "input"),
        (["a", "b" * 100_001], Cut.END, "input[1]"),
        (["a", TokenIds([5])], Cut.END, "input[1]"),
        (["a", "hello " * 300], Cut.ERROR, "input[1]"),
        (["hello"] * 200 + ["hello " * 300], Cut.ERROR, "input[200]"),
    ],
    ids=["texts", "characters", "ids", "tokens", "tokens in bulk"],
)
def test_what_cannot_be_encoded_is_named_and_the_next_is_answered(
    artifact: Artifact, tokenizer: Tokenizer, values: list[str | TokenIds], cut: Cut, param: str
) -> None:
    async def scenario(embedder: Embedder, worker: Worker) -> None:
        with pytest.raises(InvalidInputError) as error:
            await embed(embedder, values, cut=cut)
        assert error.value.param == param
        assert len((await embed(embedder, ["next"])).items) == 1

    play(scenario, artifact, tokenizer, echo)


def test_limits_are_inclusive(artifact: Artifact, tokenizer: Tokenizer) -> None:
    async def scenario(embedder: Embedder, worker: Worker) -> None:
        assert len((await embed(embedder, ["a"] * 2000)).items) == 2000
        assert (await embed(embedder, ["a" * 100_000])).tokens == 3

    play(scenario, artifact, tokenizer, echo)


def test_request_beyond_the_queue_is_too_large(artifact: Artifact, tokenizer: Tokenizer) -> None:
    async def scenario(embedder: Embedder, worker: Worker) -> None:
        with pytest.raises(TooLargeError):
            await embed(embedder, [f"hello {number}" for number in range(40)])
        for count in (40, 400):
            assert (await embed(embedder, ["hello"] * count)).tokens == 3 * count, "it is one sequence in the queue"

    play(scenario, artifact, tokenizer, echo, max_queue_tokens=100)


def test_error_of_one_text_is_named(artifact: Artifact, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        if any(len(sequence) == 9 for sequence in sequences):
            raise RuntimeError("nine")
        return echo(sequences)

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        with pytest.raises(EncoderError, match=r"^input\[1\]: "):
            await embed(embedder, ["hello", "hello " * 7, "hello"])

    play(scenario, artifact, tokenizer, encode)


@pytest.mark.parametrize("text", ["hello", "hello " * 2000], ids=["inline", "in the thread"])
def test_caller_who_gives_up_frees_the_queue(artifact: Artifact, tokenizer: Tokenizer, text: str) -> None:
    gate = threading.Event()

    def wait(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        assert gate.wait(20), "the test opens the gate"
        return echo(sequences)

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        left = asyncio.ensure_future(embed(embedder, [f"{number} {text}" for number in range(100)]))
        await until(lambda: worker.queue.sequences > 0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert worker.queue.sequences == 0
        gate.set()
        assert len((await embed(embedder, ["next"])).items) == 1

    play(scenario, artifact, tokenizer, wait, threads=1)


def test_deadline_that_has_passed_already_is_one_too(artifact: Artifact, tokenizer: Tokenizer) -> None:
    """Also once the rate is known, when what can't be served in time is turned away as too much."""

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        worker.admission.observe(Priority.SHORT, 1.0, full=True)
        for seconds in (-1.0, 0.0, 1e-9):
            with pytest.raises(DeadlineError):
                await embed(embedder, ["hello"], deadline=asyncio.get_running_loop().time() + seconds)

    play(scenario, artifact, tokenizer, echo)


def test_bad_texts_are_reported_where_that_is_wanted(artifact: Artifact, tokenizer: Tokenizer) -> None:
    values: list[str | TokenIds] = ["hello", "", "b" * 100_001, TokenIds([5]), "hello " * 300, "world"]
    texts = [Text(f"input[{index}]", value) for index, value in enumerate(values)]
    options = EncodeOptions((SENTENCE,), Truncation(Cut.ERROR), report=True)

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        embedded = await embedder.embed(texts, options, deadline=math.inf)
        params = [getattr(item, "param", None) for item in embedded.items]
        assert params == [None, "input[1]", "input[2]", "input[3]", "input[4]", None]
        assert [item.token_count for item in embedded.answered] == [3, 3]
        assert embedded.tokens == 6

    play(scenario, artifact, tokenizer, echo)


def test_bulk_with_bad_texts_keeps_its_order(artifact: Artifact, tokenizer: Tokenizer) -> None:
    texts = [Text(f"input[{index}]", "" if index % 7 == 0 else "hello " * (index % 50)) for index in range(500)]

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        embedded = await embedder.embed(texts, EncodeOptions((SENTENCE,), report=True), deadline=math.inf)
        for index, item in enumerate(embedded.items):
            if isinstance(item, InvalidInputError):
                assert item.param == f"input[{index}]"
            else:
                assert isinstance(item, Item)
                assert item.vectors[0].tolist() == [index % 50 + 2]
        assert len(embedded.answered) == sum(bool(text.value) for text in texts)

    play(scenario, artifact, tokenizer, echo)


def test_nothing_is_queued_where_every_text_is_bad(artifact: Artifact, tokenizer: Tokenizer) -> None:
    def never(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        raise AssertionError("nothing is to be encoded")

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        embedded = await embedder.embed([Text("a", "")], EncodeOptions((SENTENCE,), report=True), deadline=math.inf)
        assert (embedded.answered, embedded.tokens) == ([], 0)

    play(scenario, artifact, tokenizer, never)


def test_a_text_that_comes_twice_is_encoded_once_and_counted_each_time(
    artifact: Artifact, tokenizer: Tokenizer
) -> None:
    reports: list[BatchRun] = []
    charged: list[int] = []
    texts = [Text(f"input[{index}]", text) for index, text in enumerate(["hello", "hello world", "hello"])]

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        options = EncodeOptions((SENTENCE,))
        embedded = await embedder.embed(texts, options, deadline=math.inf, charge=charged.append)
        assert first_vectors(embedded)[:, 0].tolist() == [3, 4, 3]
        assert (embedded.tokens, charged) == (10, [7])
        await until(lambda: len(reports) == 1)

    play(scenario, artifact, tokenizer, echo, on_batch=reports.append)
    assert [(report.sequences, report.tokens) for report in reports] == [(2, 7)]


def test_what_may_not_be_charged_is_not_encoded(artifact: Artifact, tokenizer: Tokenizer) -> None:
    def refuse(tokens: int) -> None:
        raise RateLimitError(f"no {tokens} tokens", 1)

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        with pytest.raises(RateLimitError, match="no 3 tokens"):
            await embedder.embed([Text("a", "hello")], EncodeOptions((SENTENCE,)), deadline=math.inf, charge=refuse)
        assert worker.requests == 0

    play(scenario, artifact, tokenizer, echo)


def test_what_will_be_refused_is_not_tokenized(
    artifact: Artifact, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one thread for it: what the queue has no room for would delay what it has taken."""
    gate = Gate()
    chunks: list[int] = []
    tokenize = tokenizer.encode

    def noted(texts: Sequence[Text], *arguments: Any, **options: Any) -> Any:
        chunks.append(len(texts))
        return tokenize(texts, *arguments, **options)

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        with pytest.raises(InvalidInputError) as error:
            await embed(embedder, [*(f"hello {number}" for number in range(999)), ""])
        assert (error.value.param, chunks) == ("input[999]", [])
        bulk = []
        for each in "abc":  # one after the other: the last one is taken while there is a little room
            bulk.append(asyncio.ensure_future(embed(embedder, [f"{each} {number}" for number in range(150)])))
            await until(lambda: worker.requests == len(bulk))
        assert worker.queue.tokens >= 1000
        chunks.clear()
        with pytest.raises(OverloadedError, match="the queue is full"):
            await embed(embedder, [f"hello {number}" for number in range(999)])
        assert sum(chunks) < 200, "it stopped as soon as it was known to be bulk"
        gate.open.set()
        assert [len(answer.items) for answer in await asyncio.gather(*bulk)] == [150] * 3

    monkeypatch.setattr(tokenizer, "encode", noted)
    play(scenario, artifact, tokenizer, gate, threads=1, max_queue_tokens=1000)


def test_windows_are_not_laid_out_where_the_queue_would_not_take_them(artifact: Artifact, tokenizer: Tokenizer) -> None:
    """They can make of a text many times its tokens."""
    options = EncodeOptions((SENTENCE,), Truncation(Cut.WINDOW, window=3, stride=1))
    gate = Gate()

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        with pytest.raises(TooLargeError, match="1200 tokens, the queue holds 1000"):
            await embedder.embed([Text("a", "hello " * 400)], options, deadline=math.inf)
        held = [asyncio.ensure_future(embed(embedder, ["hello"]))]
        await entered(gate)
        held += [asyncio.ensure_future(embed(embedder, [f"{number} " + "hello " * 250])) for number in range(4)]
        await until(lambda: worker.queue.tokens >= 1000)
        with pytest.raises(OverloadedError):
            await embedder.embed([Text("a", "hello " * 10)], options, deadline=math.inf)
        gate.open.set()
        assert [len(answer.items) for answer in await asyncio.gather(*held)] == [1] * 5

    play(scenario, artifact, tokenizer, gate, threads=1, max_queue_tokens=1000)


def test_windows_are_encoded_and_counted_each(artifact: Artifact, tokenizer: Tokenizer) -> None:
    options = EncodeOptions((ResolvedFeature(Pooling.CLS, (6,)),), Truncation(Cut.WINDOW, window=12, stride=10))

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        embedded = await embedder.embed([Text("a", "hello " * 25)], options, deadline=math.inf)
        [item] = embedded.answered
        assert embedded.tokens == 12 + 12 + 7
        np.testing.assert_allclose(item.vectors[0], [(10 * 12 + 10 * 12 + 5 * 7) / 25])
        assert (item.token_count, item.truncated) == (27, False)

    play(scenario, artifact, tokenizer, echo)


@pytest.mark.parametrize(("texts", "refused"), [(2604, False), (2605, True)])
def test_reply_is_bounded(artifact: Artifact, tokenizer: Tokenizer, texts: int, refused: bool) -> None:
    """A million numbers are 2,604 vectors of 384."""
    options = EncodeOptions((ResolvedFeature(Pooling.NONE, (6,)),), limited="features")
    long = [Text("input[0]", "hello " * 200)] * (texts // 202) + [Text("input[1]", "hello " * (texts % 202 - 2))]

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        if refused:
            with pytest.raises(InvalidInputError, match="would hold 1000320 numbers, at most 1000000"):
                await embedder.embed(long, options, deadline=math.inf)
        else:
            assert (await embedder.embed(long, options, deadline=math.inf)).tokens == texts

    play(scenario, artifact, tokenizer, echo)


@pytest.mark.parametrize(
    ("texts", "thread"),
    [(["hello"], "MainThread"), (["hello"] * 500, "tokenizer_0"), (["hello " * 400], "tokenizer_0")],
    ids=["one", "many short ones", "a long one"],
)
def test_the_event_loop_does_little_work_of_a_request(
    artifact: Artifact, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, texts: list[str], thread: str
) -> None:
    """Many small parts are much work too, and between those that are done there nobody else has a turn."""
    threads = set()

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any, **named: Any) -> Any:
            threads.add(threading.current_thread().name)
            return method(*arguments, **named)

        return note

    for method in (Tokenizer.encode, Tokenizer.tokens):
        monkeypatch.setattr(Tokenizer, method.__name__, noting(method))

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        assert len((await embed(embedder, texts)).items) == len(texts)
        assert threads == {thread}
        threads.clear()
        named = [Text(f"inputs[{index}]", text) for index, text in enumerate(texts)]
        assert len(await embedder.tables(named, add_special_tokens=True)) == len(texts)
        assert threads == {thread}

    play(scenario, artifact, tokenizer, echo)


@pytest.mark.parametrize(("texts", "refused"), [(2604, False), (2605, True)])
def test_windows_are_bounded_by_their_vectors(
    artifact: Artifact, tokenizer: Tokenizer, texts: int, refused: bool
) -> None:
    """They are kept until the last one is there: a million numbers are 2,604 vectors of 384."""
    options = EncodeOptions(
        (ResolvedFeature(Pooling.MEAN, (6,)),), Truncation(Cut.WINDOW, window=3, stride=1), limited="input"
    )

    async def scenario(embedder: Embedder, worker: Worker) -> None:
        request = embedder.embed([Text("input", "hello " * texts)], options, deadline=math.inf)
        if refused:
            with pytest.raises(InvalidInputError, match="would hold 1000320 numbers, at most 1000000") as error:
                await request
            assert error.value.param == "input"
        else:
            assert (await request).tokens == 3 * texts

    play(scenario, artifact, tokenizer, echo)


def test_words_without_characters_count_too() -> None:
    assert [len(SplitText(words)) for words in (["a", "b"], ["a"], ["", "", "a"], ["", ""], [""])] == [3, 1, 3, 0, 0]
