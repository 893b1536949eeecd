"""Prepared text: one input as the encoder reads it, in one sequence or several, and its answer from their results."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from berth.errors import EncoderError, InvalidInputError
from berth.text.tokenizer import Token, Tokenized
from berth.text.truncation import Cut, Truncation
from berth.text.windows import Windows, combine, feature_of_window, split
from berth.types import Frame, Pooling, ResolvedFeature, TokenSequence, Vectors


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """What a request asks of each of its inputs."""

    features: tuple[ResolvedFeature, ...]
    truncation: Truncation = field(default_factory=Truncation)
    table: bool = False
    """Whether to list the tokens."""
    report: bool = False
    """Whether an input that cannot be encoded leaves the others their answers."""
    limited: str | None = None
    """The field that the error names where the vectors hold more numbers than a request may have; None: no bound."""

    detailed: bool = field(init=False)
    """Whether a feature needs to know which tokens are special, or which word each belongs to."""
    windowed: bool = field(init=False)
    """Whether an input that is too long is read in windows."""

    def __post_init__(self) -> None:
        """Work out what follows from the fields."""
        detailed = [feature.exclude_special or feature.pooling is Pooling.WORDS for feature in self.features]
        object.__setattr__(self, "detailed", any(detailed))
        object.__setattr__(self, "windowed", self.truncation.cut is Cut.WINDOW)


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """An input's answer: one array a feature, and what was read of the input."""

    vectors: Vectors
    token_count: int
    truncated: bool
    table: list[Token] | None


@dataclass(frozen=True, slots=True, eq=False)
class PreparedText:
    """One input, ready for the queue: the sequences whose results `answer` takes, and how many tokens they have."""

    name: str
    options: EncodeOptions
    tokenized: Tokenized
    sequences: list[TokenSequence]
    tokens: int
    windows: Windows | None = None
    """Where the input is read in more than one."""

    def answer(self, results: Iterator[Vectors | EncoderError]) -> Item | EncoderError:
        """Take the results of the input's sequences, in their order, and make its answer."""
        parts: list[Vectors] = []
        for part in [next(results) for _ in self.sequences]:
            if isinstance(part, EncoderError):
                return EncoderError(f"{self.name}: {part}")
            parts.append(part)
        vectors = parts[0]
        if self.windows is not None:
            how = self.options.truncation.combine
            pieces = zip(self.options.features, zip(*parts, strict=True), strict=True)
            vectors = [combine(feature, how, self.windows, piece) for feature, piece in pieces]
        encoding = self.tokenized.encoding
        return Item(vectors, len(encoding.ids), self.tokenized.truncated, self.tokenized.table)

    def numbers(self, hidden_size: int) -> int:
        """Number of floats held in memory for this input's result; with windows, the sum over windows."""
        held = self.options.features if self.windows is None else self.sequences[0].features
        widths = [feature.width(hidden_size) for feature in held]
        return sum([width * self._rows(feature) for width, feature in zip(widths, self.options.features, strict=True)])

    def _rows(self, feature: ResolvedFeature) -> int:
        encoding = self.tokenized.encoding
        match feature.pooling:
            case Pooling.NONE | Pooling.WORDS if self.windows is not None:
                return self.tokens
            case Pooling.NONE if feature.exclude_special and encoding.special is not None:
                return len(encoding) - int(encoding.special.sum())
            case Pooling.NONE:
                return len(encoding)
            case Pooling.WORDS if encoding.words is not None:
                return len(np.unique(encoding.words[encoding.words >= 0]))
            case _:
                return len(self.sequences)


def prepare(name: str, options: EncodeOptions, tokenized: Tokenized, max_tokens: int, frame: Frame) -> PreparedText:
    """Prepare a tokenized input; raises `InvalidInputError` where nothing of it is left to pool."""
    encoding, features = tokenized.encoding, options.features
    for feature in features:
        prompt = 0 if feature.include_prompt else encoding.prompt
        if prompt and prompt >= len(encoding):
            raise InvalidInputError(name, "has no token beside the prompt's, which the model leaves out of the pooling")
        if feature.exclude_special and encoding.special is not None and encoding.special[prompt:].all():
            raise InvalidInputError(name, "has special tokens only, and `exclude_special` leaves nothing of them")
    if options.windowed:
        windows = split(encoding, options.truncation, max_tokens, frame)
        if len(windows.encodings) > 1:
            of_window = tuple(map(feature_of_window, features))
            sequences = [TokenSequence(each, of_window) for each in windows.encodings]
            return PreparedText(name, options, tokenized, sequences, sum(map(len, sequences)), windows)
    return PreparedText(name, options, tokenized, [TokenSequence(encoding, features)], len(encoding.ids))
