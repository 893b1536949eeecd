"""The rehearsal: the largest batch that the scheduler may make, once for each batch that may be under way."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from service.inference.artifact import Artifact
from service.inference.rehearsal import MOST_TOKENS, largest_batch, rehearse
from service.inference.scheduler import MAX_PADDING, Flow, Scheduler, Ticket
from service.inference.types import Unit, Vectors


def unit_like(unit: Unit, number: int) -> Unit:
    """Make a unit of the same length that is like no other."""
    encoding = unit.encoding
    return replace(unit, encoding=replace(encoding, ids=np.full_like(encoding.ids, number)))


@pytest.mark.parametrize("most", [8, 256])
@pytest.mark.parametrize("tokens", [8, 64, 256, 384, 512, 1024])
def test_the_batch_is_one_that_may_come_and_none_takes_more(artifact: Artifact, tokens: int, most: int) -> None:
    batch = largest_batch(artifact.manifest.model_copy(update={"max_tokens": most}), tokens)
    assert max(map(len, batch)) <= most
    scheduler, flow = Scheduler(tokens), Flow()
    flow.tickets.extend(Ticket(flow, index, unit_like(unit, index)) for index, unit in enumerate(batch))
    scheduler.add(flow)
    assert len(scheduler.take_batch(flow.kind)) == len(batch)
    bound = int(MAX_PADDING * tokens)
    others = (units * min(most, bound // units) ** 2 for units in range(2, tokens))
    assert len(batch) * max(map(len, batch)) ** 2 == max(others)


def test_so_many_are_begun_at_once(artifact: Artifact) -> None:
    begun: list[tuple[int, int]] = []  # by which thread, and how many tokens

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        begun.append((threading.get_ident(), sum(map(len, units))))
        return []

    rehearse(encode, artifact.manifest, 10 * MOST_TOKENS, 4)
    for tokens in (MOST_TOKENS, artifact.manifest.max_tokens, 64):
        assert len({thread for thread, each in begun if each == tokens}) == 4
    assert len(begun) == 3 * 4


def test_what_fails_is_raised(artifact: Artifact) -> None:
    def fail(_: Sequence[Unit]) -> list[Vectors]:
        raise MemoryError

    with pytest.raises(MemoryError):
        rehearse(fail, artifact.manifest, 64, 2)
