"""The four workloads: how many texts a request has, how many requests are on the way at once, and the texts."""

import json
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from berth.types import Float32Array

MEDIAN_TOKENS = 24
SIGMA = 0.8  # of the log: the mean of what is drawn is 33 tokens
FRAME = 2  # [CLS] and [SEP]
TRIES = 64

Tokens = Callable[[str], int]
"""Counts a text's tokens, without [CLS] and [SEP]."""
Draw = Callable[[random.Random], int]
"""Draws a text's length in tokens, with [CLS] and [SEP]."""


def short(chance: random.Random) -> int:
    """Draw the length of a query."""
    return chance.randint(8, 24)


def mixed(chance: random.Random) -> int:
    """Draw a length as running text has them: log-normal, within 4 to 256."""
    return min(max(round(chance.lognormvariate(np.log(MEDIAN_TOKENS), SIGMA)), 4), 256)


def long(_: random.Random) -> int:
    """Give the default model's own maximum."""
    return 256


@dataclass(frozen=True, slots=True)
class Shape:
    """What the requests of a workload look like."""

    name: str
    title: str
    texts: int
    concurrency: int
    draw: Draw
    pool: int
    """How many texts are drawn; a run goes through them again and again."""


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("w1", "single short", 1, 1, short, 512),
        Shape("w2", "single mixed, 32 at once", 1, 32, mixed, 2048),
        Shape("w3", "bulk 64, 4 at once", 64, 4, mixed, 64 * 48),
        Shape("w4", "long 256, 16 at once", 1, 16, long, 128),
    )
}


@dataclass(frozen=True, eq=False)
class Workload:
    """A shape and its texts; `vectors` [texts, width] where the data came with them."""

    shape: Shape
    texts: list[str]
    vectors: Float32Array | None = None

    @cached_property
    def requests(self) -> list[list[str]]:
        """Give the texts of each request."""
        size = self.shape.texts
        return [self.texts[start : start + size] for start in range(0, len(self.texts) - size + 1, size)]


class Drawer:
    """Cuts texts of wanted lengths out of running prose."""

    def __init__(self, sentences: Sequence[str], tokens: Tokens, max_tokens: int) -> None:
        split = [sentence.split() for sentence in sentences]
        self._words = [word for words in split for word in words]
        self._starts = list(accumulate((len(words) for words in split), initial=0))[:-1]
        known = {word: tokens(word) for word in set(self._words)}
        self._ends = list(accumulate((known[word] for word in self._words), initial=0))
        self._max_tokens = max_tokens

    def workload(self, shape: Shape, seed: int = 0) -> Workload:
        """Draw a workload's texts: the same ones for a seed, a prose and a tokenizer."""
        chance = random.Random(f"{shape.name} {seed}")  # noqa: S311  # no secret
        return Workload(shape, [self.text(shape.draw(chance), chance) for _ in range(shape.pool)])

    def text(self, tokens: int, chance: random.Random) -> str:
        """Give a text that begins with a sentence and has so many tokens, or at most a word's fewer."""
        room = min(tokens, self._max_tokens) - FRAME
        best, most = (0, 1), 0
        for _ in range(TRIES):
            first = chance.choice(self._starts)
            last = bisect_right(self._ends, self._ends[first] + room) - 1
            got = self._ends[last] - self._ends[first]
            if got > most:
                best, most = (first, last), got
            if got == room:
                break
        return " ".join(self._words[slice(*best)])


def load_workload(folder: Path, shape: Shape) -> Workload:
    """Read a workload from `workloads.json` and its reference vectors from `ref_NAME.npy`."""
    texts = json.loads((folder / "workloads.json").read_bytes())[shape.name]
    return Workload(shape, texts, np.load(folder / f"ref_{shape.name}.npy", allow_pickle=False).astype(np.float32))
