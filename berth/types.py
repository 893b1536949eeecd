"""The nouns that tokenizer, queue, encoder and embedder hand to each other."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.intp]
Int32Array = NDArray[np.int32]
Float32Array = NDArray[np.float32]


class Pooling(StrEnum):
    """How the token vectors of a text become its vector, or vectors."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    MEAN_MAX = "mean_max"
    LAST = "last"
    WEIGHTED_MEAN = "weighted_mean"
    MEAN_SQRT_LEN = "mean_sqrt_len"
    POOLER = "pooler"
    NONE = "none"
    WORDS = "words"


class Metric(StrEnum):
    """How near two vectors are; larger is always nearer, as in sentence-transformers."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"


class Merge(StrEnum):
    """How several layers become one."""

    CONCAT = "concat"
    MEAN = "mean"
    SUM = "sum"
    WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens around a text, by their ids: before it, between the two texts of a pair, after it."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    cls: int | None = 0
    """The row of a framed text that is [CLS]: 0 is the first, -1 the last; None where the model has none."""

    def size(self, pair: bool = False) -> int:
        """Count the special tokens of a text, or of a pair."""
        return len(self.before) + len(self.after) + (len(self.between) if pair else 0)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the network's kind decides of how a batch is laid out.

    `window` is how far near attention reaches, `padding_id` the id whose tokens have no place: the manifest's fields.
    """

    heads: int
    window: int | None = None
    padding_id: int | None = None


@dataclass(frozen=True, slots=True)
class ResolvedFeature:
    """One representation of a text: which layers, merged how, pooled how, and what the pooled vector passes through.

    `layers` are 0 (the embeddings) to the number of blocks, already resolved; `weights` has one number a layer and is
    empty unless `merge` is `weights`. A pooled vector is projected, then normalized, then cut.
    """

    pooling: Pooling
    layers: tuple[int, ...]
    merge: Merge = Merge.CONCAT
    weights: tuple[float, ...] = ()
    normalize: bool = False
    exclude_special: bool = False
    further: tuple[Pooling, ...] = ()
    """Poolings to one vector, which are joined to the first's."""
    include_prompt: bool = True
    """Whether the tokens of a prompt, and the special ones before it, are pooled."""
    projected: int = 0
    """The width that the model's projection gives the pooled vector; 0 where it does not pass through it."""
    dimensions: int = 0
    """The numbers that are kept of the vector at last, without normalizing it again; 0 where all are."""

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """All whose vectors are joined, in their order."""
        return self.pooling, *self.further

    def width(self, hidden_size: int) -> int:
        """Count the numbers of one vector of this feature."""
        if self.pooling is Pooling.POOLER:
            return hidden_size
        merged = hidden_size * (len(self.layers) if self.merge is Merge.CONCAT else 1)
        joined = merged * sum([2 if pooling is Pooling.MEAN_MAX else 1 for pooling in self.poolings])
        width = self.projected or joined
        return min(width, self.dimensions or width)


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A text that the caller tokenized, in the model's frame."""

    ids: list[int]

    def __len__(self) -> int:
        """Count the tokens."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts in one encoding, told apart by the frame between them, by type ids, or by both."""

    first: str
    second: str

    def __len__(self) -> int:
        """Count the characters."""
        return len(self.first) + len(self.second)


@dataclass(frozen=True, slots=True)
class SplitText:
    """A text whose words were split by the caller."""

    words: list[str]

    def __len__(self) -> int:
        """Count the characters, and one between words: a word costs time even if it is empty; 0 where all are."""
        characters = sum(map(len, self.words))
        return characters and characters + len(self.words) - 1


@dataclass(frozen=True, slots=True)
class Text:
    """One input, the name that an error about it should use, as in `input[3]`, and what the model wants before it."""

    name: str
    value: str | TextPair | SplitText | TokenIds
    prompt: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """What the encoder reads of one text, in its frame: four arrays of one length.

    `special` marks the tokens the tokenizer added; `words` counts the words of the text from 0 and is -1 outside them.
    Both are None where no feature asked for them. `prompt` counts the leading tokens that are no text of the caller's,
    the frame's and the prompt's, where there is a prompt; else it is 0.
    """

    ids: Int32Array
    type_ids: Int32Array
    special: NDArray[np.bool_] | None = None
    words: Int32Array | None = None
    prompt: int = 0

    def __len__(self) -> int:
        """Count the tokens, special ones too."""
        return len(self.ids)

    def take(self, places: NDArray[np.intp]) -> "Encoding":
        """Give the encoding of some of its tokens."""
        special = None if self.special is None else self.special[places]
        words = None if self.words is None else self.words[places]
        return Encoding(self.ids[places], self.type_ids[places], special, words, self.prompt)


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """The least that can be queued: one encoding and the features requested of it."""

    encoding: Encoding
    features: tuple[ResolvedFeature, ...]

    def __len__(self) -> int:
        """Count the tokens."""
        return len(self.encoding.ids)

    @property
    def key(self) -> Hashable:
        """Tell whether another sequence has the same result."""
        encoding = self.encoding
        arrays = (encoding.ids, encoding.type_ids, encoding.special, encoding.words)
        return (self.features, encoding.prompt, *(None if array is None else array.tobytes() for array in arrays))


Requested = Mapping[ResolvedFeature, list[int]]
"""The features that a batch requests, each with the places in the batch of the sequences that request it."""

Vectors = list[Float32Array]
"""A sequence's result, an array a feature: [width], but [tokens, width] for `none` and [words, width] for `words`."""
