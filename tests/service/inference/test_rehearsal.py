"""The rehearsal: the largest batch that the scheduler may make, once for each batch that may be under way."""

import threading
from collections.abc import Sequence

import pytest

from service.inference.artifact import Artifact
from service.inference.rehearsal import MOST_TOKENS, largest_batch, rehearse
from service.inference.scheduler import MAX_PADDING
from service.inference.types import Unit, Vectors
from tests.service.inference.playing import ANSWER_BOUND


@pytest.mark.parametrize("tokens", [8, 64, 256, 384, 512, 1024])
def test_the_batch_is_one_that_may_come_and_none_takes_more(artifact: Artifact, tokens: int) -> None:
    most = artifact.manifest.max_tokens
    batch = largest_batch(artifact.manifest, tokens)
    longest, padded = len(batch[0]), len(batch) * len(batch[0])
    assert longest == max(map(len, batch)) <= most
    assert sum(map(len, batch)) <= tokens
    rounding = len(batch)  # tokens cannot be split
    assert padded <= MAX_PADDING * (sum(map(len, batch)) + rounding)
    bound = int(MAX_PADDING * tokens)
    others = (units * min(most, bound // units) ** 2 for units in range(2, tokens))
    assert padded * longest == max(others)


def test_all_are_under_way_at_once(artifact: Artifact) -> None:
    together = threading.Barrier(4, timeout=ANSWER_BOUND)
    sizes: list[int] = []

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        together.wait()
        sizes.append(sum(map(len, units)))
        return []

    rehearse(encode, artifact.manifest, 10 * MOST_TOKENS, 4)
    assert len(sizes) == 8
    assert MOST_TOKENS - 8 <= min(sizes[:4]) <= max(sizes[:4]) <= MOST_TOKENS
    assert sizes[4:] == [artifact.manifest.max_tokens] * 4


def test_what_fails_is_raised(artifact: Artifact) -> None:
    def fail(_: Sequence[Unit]) -> list[Vectors]:
        raise MemoryError

    with pytest.raises(MemoryError):
        rehearse(fail, artifact.manifest, 64, 2)
