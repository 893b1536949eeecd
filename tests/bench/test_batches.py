"""The batches that the service's queue makes of requests."""

import numpy as np

from bench.batches import all_batches, endless_batches
from berth.types import Encoding, Pooling, ResolvedFeature, TokenSequence


def sequence(length: int) -> TokenSequence:
    ids = np.ones(length, dtype=np.int32)
    return TokenSequence(Encoding(ids, np.zeros_like(ids)), (ResolvedFeature(Pooling.MEAN, (1,)),))


def test_endless_batches_keep_within_the_budget_and_leave_no_text_out() -> None:
    requests = [[sequence(length) for length in (3, 20, 4)], [sequence(5)], [sequence(21), sequence(9)]]
    texts = [one for request in requests for one in request]
    source = endless_batches(requests, concurrency=2, budget=24)
    seen: list[TokenSequence] = []
    while len(seen) < 60:
        batch = next(source)
        assert sum(map(len, batch)) <= 24
        seen += batch
    for one in texts:
        assert abs(sum(each is one for each in seen) - 10) <= 2


def test_requests_that_all_wait_are_in_a_batch_once_and_short_ones_go_first() -> None:
    bulk, short = [sequence(length) for length in (9, 9, 9, 9)], [sequence(20)]
    found = list(all_batches([bulk, short], 24))
    assert [one for batch in found for one in batch] == [*short, *bulk]
    assert [len(batch) for batch in found] == [1, 2, 2]
