"""Windows: a long text read in overlapping pieces, and its vectors put together from theirs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from berth.backends.pooling import finished, mean_of_words
from berth.text.truncation import Combine, Truncation, windows
from berth.types import Encoding, Float32Array, Pooling, ResolvedFeature


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """A text's windows: each one's encoding, framed, and the places of the text's own tokens that it reads."""

    whole: Encoding
    encodings: list[Encoding]
    spans: list[tuple[int, int]]


def tokens_read(whole: Encoding, truncation: Truncation, max_tokens: int) -> int:
    """Count the tokens of all windows, special ones too, without making them."""
    count = len(whole) - 2
    room = (truncation.window or max_tokens) - 2
    stride = truncation.stride or room
    further = -(-max(count - room, 0) // stride)  # windows beside the last one, which alone may be shorter
    return further * (room + 2) + count - further * stride + 2


def split(whole: Encoding, truncation: Truncation, max_tokens: int) -> Windows:
    """Cut a framed encoding into framed windows; a text that fits into one stays as it is."""
    count = len(whole) - 2
    room = (truncation.window or max_tokens) - 2
    spans = windows(count, room, truncation.stride or room)
    if len(spans) == 1:
        return Windows(whole, [whole], spans)
    framed = (np.concatenate([[0], np.arange(first, last) + 1, [count + 1]]) for first, last in spans)
    return Windows(whole, [whole.take(places) for places in framed], spans)


def feature_of_window(feature: ResolvedFeature) -> ResolvedFeature:
    """Say what each window must give for `combine` to make the feature of the whole text."""
    match feature.pooling:
        case Pooling.NONE | Pooling.WORDS:
            return replace(feature, pooling=Pooling.NONE, normalize=False, exclude_special=False)
        case _:
            return replace(feature, normalize=False, dimensions=0)


def combine(feature: ResolvedFeature, how: Combine, text: Windows, parts: Sequence[Float32Array]) -> Float32Array:
    """Make a text's feature from its windows' parts, each what `feature_of_window` asks for.

    Pooled vectors are averaged, weighted by the tokens that each window brings which none before it had, or their
    maximum is taken. Of token vectors each comes from the window in which it stands furthest from an edge.
    """
    match feature.pooling:
        case Pooling.NONE:
            states = _most_central(text, parts)
            vectors = states[1:-1] if feature.exclude_special else states
        case Pooling.WORDS:
            assert text.whole.words is not None, "the embedder asks the tokenizer for words where a feature pools them"
            vectors = mean_of_words(_most_central(text, parts), text.whole.words)
        case _ if how is Combine.MAX:
            vectors = np.max(parts, axis=0)
        case _:
            ends = [last for _, last in text.spans]
            vectors = np.average(parts, axis=0, weights=np.diff(ends, prepend=0)).astype(np.float32)
    return finished(replace(feature, projected=0), vectors)  # each window's was projected


def _most_central(text: Windows, parts: Sequence[Float32Array]) -> Float32Array:
    """Give one row a token of the whole text: [CLS] of the first window, [SEP] of the last, the rest as said above."""
    count = len(text.whole) - 2
    states = np.empty((count + 2, parts[0].shape[1]), dtype=np.float32)
    states[0], states[-1] = parts[0][0], parts[-1][-1]
    furthest = np.full(count, -1)
    for (first, last), part in zip(text.spans, parts, strict=True):
        places = np.arange(last - first)
        from_edge = np.minimum(places, places[::-1])
        better = from_edge > furthest[first:last]
        furthest[first:last][better] = from_edge[better]
        states[1 + first : 1 + last][better] = part[1:-1][better]
    return states
