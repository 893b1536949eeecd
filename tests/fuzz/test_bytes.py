"""Bodies of random bytes, and JSON that was damaged: each has an answer, none of them a server error."""

import asyncio
import random
from collections import Counter

import pytest

from bench.connection import Connection, post
from tests.end_to_end.conftest import Service
from tests.fuzz.conftest import BODIES, SEED

CLIENTS = 8
POSTS = {
    "/v1/embeddings": b'{"input": ["a ship", "two ships"], "dimensions": 8, "encoding_format": "base64"}',
    "/v1/features": b'{"inputs": ["a", ["b", "c"]], "features": [{"pooling": "cls", "layers": [0, -1]}]}',
    "/v1/similarity": b'{"source": "a", "target": ["b", "c"], "metric": "dot", "top_k": 1}',
    "/v1/tokenize": b'{"inputs": ["a ship \\ud83d\\udea2"], "add_special_tokens": false}',
    "/v1/detokenize": b'{"ids": [[101, 1037, 2911, 102]], "skip_special_tokens": true}',
    "/": b'{"inputs": {"source_sentence": "a", "sentences": ["b"]}}',
    "/embed": b'{"inputs": "a", "truncate": true, "normalize": false}',
    "/embed_all": b'{"inputs": ["a", "b"]}',
    "/similarity": b'{"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}',
    "/tokenize": b'{"inputs": "a b c"}',
    "/decode": b'{"ids": [101, 1037, 102]}',
    "/encode": b'{"id": 1, "texts": ["a", "b ||| c"], "is_tokenized": false}',
}


def body_of(chance: random.Random, sound: bytes) -> bytes:
    """Make random bytes, or a sound body of which some bytes are changed, cut out, doubled or put elsewhere."""
    if chance.random() < 0.3:
        return chance.randbytes(int(chance.expovariate(1 / 200)))
    body = bytearray(sound)
    for _ in range(chance.randint(1, 6)):
        start = chance.randrange(len(body) + 1)
        end = min(len(body), start + chance.randint(0, 12))
        match chance.randrange(5):
            case 0:
                body[start:end] = chance.randbytes(end - start)
            case 1:
                del body[start:end]
            case 2:
                body[start:start] = body[start:end] * chance.randint(1, 50)
            case 3:
                body[start:end] = chance.choice(
                    [b"null", b"-1", b"1e999", b"[]", b"{}", b'"\\ud800"', b"[" * 300, b"\0"]
                )
            case _:
                body[start:start] = str(chance.choice([2**31, 2**63, 2**64, -(2**63), 10**40])).encode()
    return bytes(body)


@pytest.mark.timeout(3600)
def test_every_body_has_an_answer(fuzzed: Service) -> None:
    chance = random.Random(SEED)
    routes = list(POSTS)
    statuses: Counter[int] = Counter()
    left = BODIES

    async def send_on() -> None:
        nonlocal left
        connection: Connection | None = None
        while left > 0:
            left -= 1
            route = chance.choice(routes)
            body = body_of(chance, POSTS[route])
            if connection is None or not connection.open:
                connection = await Connection.to(fuzzed.url)
            answer = await asyncio.wait_for(connection.ask(post(fuzzed.url, route, body)), 60)
            statuses[answer.status] += 1
            assert answer.status < 500, (route, body, answer.body)
        if connection is not None and connection.open:
            connection.close()

    async def together() -> None:
        await asyncio.gather(*(send_on() for _ in range(CLIENTS)))

    asyncio.run(together())
    print(f"seed {SEED}: {dict(statuses)}")
    assert statuses.total() == BODIES
    assert statuses.keys() <= {200, 400, 413, 422}, statuses
    with fuzzed.client() as http:
        assert http.post("/v1/embeddings", json={"input": "next"}).status_code == 200
