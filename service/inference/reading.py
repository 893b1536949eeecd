"""A reading: one input as the encoder will see it, in one unit or several, and how its answer is made of theirs."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from service.errors import EncoderError, InvalidInputError
from service.inference.tokenizer import Token, Tokenized
from service.inference.truncation import Cut, Truncation
from service.inference.types import Feature, Pooling, Unit, Vectors
from service.inference.windows import Windows, combine, feature_of_window, split, tokens_read


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request wants of each of its inputs."""

    features: tuple[Feature, ...]
    truncation: Truncation = field(default_factory=Truncation)
    table: bool = False
    """Whether to tell the tokens."""
    report: bool = False
    """Whether an input that cannot be encoded leaves the others their answers."""
    limited: str | None = None
    """The field to blame for vectors of more numbers than one request may have; None where nothing bounds them."""

    @property
    def detailed(self) -> bool:
        """Whether a feature needs to know which tokens are special, or which word each belongs to."""
        return any(feature.exclude_special or feature.pooling is Pooling.WORDS for feature in self.features)

    @property
    def windowed(self) -> bool:
        """Whether an input that is too long is read in windows."""
        return self.truncation.cut is Cut.WINDOW


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """An input's answer: one array a feature, and what was read of the input."""

    vectors: Vectors
    token_count: int
    truncated: bool
    table: list[Token] | None


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One input, ready for the queue."""

    name: str
    wish: Wish
    tokenized: Tokenized
    windows: Windows

    @property
    def units(self) -> list[Unit]:
        """Give the units whose results `answer` takes."""
        features = self.wish.features if not self._windowed else tuple(map(feature_of_window, self.wish.features))
        return [Unit(encoding, features) for encoding in self.windows.encodings]

    def answer(self, results: Iterator[Vectors | EncoderError]) -> Item | EncoderError:
        """Take the results of the reading's units, in their order, and make its answer."""
        parts: list[Vectors] = []
        for part in [next(results) for _ in self.windows.encodings]:
            if isinstance(part, EncoderError):
                return EncoderError(f"{self.name}: {part}")
            parts.append(part)
        vectors = parts[0]
        if self._windowed:
            how = self.wish.truncation.combine
            pieces = zip(self.wish.features, zip(*parts, strict=True), strict=True)
            vectors = [combine(feature, how, self.windows, piece) for feature, piece in pieces]
        return Item(vectors, len(self.tokenized.encoding), self.tokenized.truncated, self.tokenized.table)

    def numbers(self, hidden_size: int) -> int:
        """Count the numbers that are kept for the answer until it is made: of windows those of each."""
        return sum(feature.width(hidden_size) * self._rows(feature) for feature in self.wish.features)

    @property
    def _windowed(self) -> bool:
        return len(self.windows.encodings) > 1

    def _rows(self, feature: Feature) -> int:
        encoding = self.tokenized.encoding
        match feature.pooling:
            case Pooling.NONE | Pooling.WORDS if self._windowed:
                return sum(map(len, self.windows.encodings))
            case Pooling.NONE if feature.exclude_special and encoding.special is not None:
                return len(encoding) - int(encoding.special.sum())
            case Pooling.NONE:
                return len(encoding)
            case Pooling.WORDS if encoding.words is not None:
                return len(np.unique(encoding.words[encoding.words >= 0]))
            case _:
                return len(self.windows.encodings)


def cost(tokenized: Tokenized, wish: Wish, max_tokens: int) -> int:
    """Count the tokens that the encoder would read of an input."""
    if wish.windowed:
        return tokens_read(tokenized.encoding, wish.truncation, max_tokens)
    return len(tokenized.encoding)


def read(name: str, wish: Wish, tokenized: Tokenized, max_tokens: int) -> Reading:
    """Prepare a tokenized input; raises `InvalidInputError` where nothing of it is left to pool."""
    encoding = tokenized.encoding
    excluding = any(feature.exclude_special for feature in wish.features)
    if excluding and encoding.special is not None and encoding.special.all():
        raise InvalidInputError(name, "has special tokens only, and `exclude_special` leaves nothing of them")
    if wish.windowed:
        return Reading(name, wish, tokenized, split(encoding, wish.truncation, max_tokens))
    return Reading(name, wish, tokenized, Windows(encoding, [encoding], []))
