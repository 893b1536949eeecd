"""What the soak sends: right requests to several routes with their answers, bad ones, and ones nobody waits for."""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.check import cosines
from bench.connection import post
from bench.model import Model
from bench.workloads import mixed
from berth.similarity import scores
from berth.types import Float32Array, Pooling, ResolvedFeature

LOWEST_COSINE = 0.9999
SCORE_TOLERANCE = 1e-3
"""Of a score, and at least of 1: it may be near 0."""
POOL = 256
"""Requests of each kind that are drawn."""

Read = Callable[[Any], Any]
Alike = Callable[[Float32Array, Float32Array], bool]


def same_vectors(found: Float32Array, expected: Float32Array) -> bool:
    """Hold vectors against the right ones."""
    return bool((cosines(found, expected) > LOWEST_COSINE).all())


def same_scores(found: Float32Array, expected: Float32Array) -> bool:
    """Hold scores against the right ones; rows of them are no vectors, for a cosine would not see a factor."""
    close = found.shape == expected.shape and np.allclose(found, expected, rtol=SCORE_TOLERANCE, atol=SCORE_TOLERANCE)
    return bool(close)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it is sent, the status it must have, and what says whether its answer is right."""

    kind: str
    sent: bytes
    status: int = 200
    expected: Float32Array | None = None
    read: Read = lambda answer: answer
    alike: Alike = same_vectors
    leaves: bool = False

    def is_right(self, body: bytes) -> bool:
        """Hold an answer against the expected vectors or scores; one that cannot be read is wrong."""
        if self.expected is None:
            return True
        try:
            found = np.array(self.read(json.loads(body)), dtype=np.float32)
        except (ValueError, TypeError, LookupError):
            return False
        return self.alike(found, self.expected)


class Mixture:
    """Draws requests: of a hundred, two are bad and two are left."""

    def __init__(self, model: Model, base: str, chance: random.Random) -> None:
        self._model = model
        self._base = base
        self._chance = chance
        kinds = (self._embeddings, self._base64, self._features, self._tei, self._similarity, self._encode)
        self._good = [kind() for kind in kinds for _ in range(POOL)]
        self._bad = self._bad_ones()
        self._left = [self._left_one() for _ in range(16)]

    def good(self) -> Ask:
        """Draw a request that is right."""
        return self._chance.choice(self._good)

    def draw(self) -> Ask:
        """Draw a request."""
        place = self._chance.random()
        return self._chance.choice(self._bad if place < 0.02 else self._left if place < 0.04 else self._good)

    def _texts(self) -> list[str]:
        count = self._chance.choice([1, 1, 1, 1, 2, 4, 8])
        return [self._model.drawer.text(mixed(self._chance), self._chance) for _ in range(count)]

    def _vectors(self, texts: list[str], feature: ResolvedFeature | None = None) -> Float32Array:
        sequences = self._model.sequences(texts, feature)
        return np.stack([self._model.encode([sequence])[0][0] for sequence in sequences])

    def _ask(self, kind: str, path: str, body: dict[str, Any], expected: Float32Array, read: Read) -> Ask:
        return Ask(kind, self._post(path, body), expected=expected, read=read)

    def _post(self, path: str, body: Any) -> bytes:
        return post(self._base, path, json.dumps(body).encode())

    def _embeddings(self) -> Ask:
        texts = self._texts()
        expected = self._vectors(texts)
        return self._ask("embeddings", "/v1/embeddings", {"input": texts}, expected, _embeddings_of)

    def _base64(self) -> Ask:
        texts = self._texts()
        body = {"input": texts, "encoding_format": "base64"}
        return self._ask("base64", "/v1/embeddings", body, self._vectors(texts), _decoded_of)

    def _features(self) -> Ask:
        texts = self._texts()
        feature = ResolvedFeature(Pooling.MEAN, (1, 2))
        body = {"inputs": texts, "features": [{"pooling": "mean", "layers": [1, 2]}, {"pooling": "none"}]}
        return self._ask("features", "/v1/features", body, self._vectors(texts, feature), _first_features_of)

    def _tei(self) -> Ask:
        texts = self._texts()
        expected = self._vectors(texts, replace(self._model.feature, normalize=True))
        return self._ask("tei", "/embed", {"inputs": texts}, expected, list)

    def _similarity(self) -> Ask:
        source, target = self._texts(), [*self._texts(), *self._texts()]
        metric = self._model.artifact.manifest.similarity
        expected = scores(metric, self._vectors(source), self._vectors(target)).astype(np.float32)
        sent = self._post("/v1/similarity", {"source": source, "target": target})
        return Ask("similarity", sent, expected=expected, read=lambda answer: answer["scores"], alike=same_scores)

    def _encode(self) -> Ask:
        texts = self._texts()
        feature = ResolvedFeature(Pooling.MEAN, (self._model.artifact.manifest.layers - 1,))
        expected = self._vectors(texts, feature)
        return self._ask("encode", "/encode", {"id": 1, "texts": texts}, expected, lambda answer: answer["result"])

    def _left_one(self) -> Ask:
        texts = [self._model.drawer.text(mixed(self._chance), self._chance) for _ in range(8)]
        return Ask("left", self._post("/v1/embeddings", {"input": texts}), leaves=True)

    def _bad_ones(self) -> list[Ask]:
        return [
            Ask("bad", post(self._base, "/v1/embeddings", b'{"input": "half of'), 400),
            Ask("bad", post(self._base, "/v1/embeddings", b"\xff\xfe\x00"), 400),
            Ask("bad", self._post("/v1/embeddings", {"input": []}), 400),
            Ask("bad", self._post("/v1/features", {"inputs": ["a"], "features": [{"layers": [99]}]}), 400),
            Ask("bad", self._post("/v1/similarity", {"source": "a", "target": "b", "unknown": 1}), 400),
            Ask("bad", self._post("/embed", {"inputs": 3}), 422),
            Ask("bad", self._post("/v1/embeddings", {"input": "a", "model": "another"}), 404),
            Ask("bad", self._post("/nowhere", {}), 404),
            Ask("bad", self._post("/info", {}), 405),
        ]


def _embeddings_of(answer: Any) -> Any:
    return [item["embedding"] for item in answer["data"]]


def _decoded_of(answer: Any) -> Any:
    return [np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in answer["data"]]


def _first_features_of(answer: Any) -> Any:
    return [item["features"][0] for item in answer["data"]]
