"""The warm-up: the largest batch that the queue may give, once for each batch that may be under way."""

import threading
from collections.abc import Sequence

import pytest

from berth.artifact import Artifact
from berth.backends.warmup import MOST_TOKENS, largest_batch, warm_up
from berth.batching.queue import MAX_PADDING, Lane, Priority, Queue, QueueEntry, Request
from berth.contract import FakeEncoder
from berth.types import TokenSequence, Vectors


@pytest.mark.parametrize("most", [8, 256])
@pytest.mark.parametrize("tokens", [8, 64, 256, 384, 512, 1024])
def test_the_batch_is_one_that_may_come_and_none_takes_more(artifact: Artifact, tokens: int, most: int) -> None:
    batch = largest_batch(artifact.manifest.model_copy(update={"max_tokens": most}), tokens)
    assert max(map(len, batch)) <= most
    queue, request = Queue(), Request(Lane(tokens))
    request.entries.extend(QueueEntry(request, sequence, len(sequence)) for sequence in batch)
    queue.add(request, Priority.BULK)
    assert len(queue.take_batch(Priority.BULK)) == len(batch)
    bound = int(MAX_PADDING * tokens)
    others = (sequences * min(most, bound // sequences) ** 2 for sequences in range(2, tokens))
    assert len(batch) * max(map(len, batch)) ** 2 == max(others)


def test_so_many_are_begun_at_once(artifact: Artifact) -> None:
    begun: list[tuple[int, int]] = []  # by which thread, and how many tokens

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        begun.append((threading.get_ident(), sum(map(len, sequences))))
        return []

    warm_up(FakeEncoder(encode), artifact.manifest, 10 * MOST_TOKENS, 4)
    for tokens in (MOST_TOKENS, artifact.manifest.max_tokens):
        assert len({thread for thread, each in begun if each == tokens}) == 4
    assert len(begun) == 2 * 4


def test_what_fails_is_raised(artifact: Artifact) -> None:
    def fail(_: Sequence[TokenSequence]) -> list[Vectors]:
        raise MemoryError

    with pytest.raises(MemoryError):
        warm_up(FakeEncoder(fail), artifact.manifest, 64, 2)
