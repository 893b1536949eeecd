"""Windows: a long text read in overlapping pieces, and its vectors put together from theirs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from berth.backends.pooling import finished, mean_of_words
from berth.text.truncation import Combine, Truncation, windows
from berth.types import Encoding, Float32Array, Frame, Pooling, ResolvedFeature


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """A text's windows: each one's encoding, framed, and which of the text's own tokens it reads.

    `front` and `back` count the rows before and after the text's own tokens, in the whole text and in each window:
    those of the frame and of a prompt.
    """

    whole: Encoding
    encodings: list[Encoding]
    spans: list[tuple[int, int]]
    front: int
    back: int


def tokens_read(whole: Encoding, truncation: Truncation, max_tokens: int, frame: Frame) -> int:
    """Count the tokens of all windows, those around the text's own too, without making them."""
    window = truncation.window or max_tokens
    if len(whole) <= window:
        return len(whole)
    around = sum(_around(whole, frame))
    count, room = len(whole) - around, window - around
    stride = truncation.stride or room
    further = -(-(count - room) // stride)  # windows beside the last one, which alone may be shorter
    return further * window + count - further * stride + around


def split(whole: Encoding, truncation: Truncation, max_tokens: int, frame: Frame) -> Windows:
    """Cut a framed encoding into windows, each with the frame and the prompt; one that fits stays as it is."""
    front, back = _around(whole, frame)
    window, count = truncation.window or max_tokens, len(whole) - front - back
    if len(whole) <= window:
        return Windows(whole, [whole], [(0, count)], front, back)
    room = window - front - back
    spans = windows(count, room, truncation.stride or room)
    before, after = np.arange(front), np.arange(front + count, len(whole))
    framed = (np.concatenate([before, np.arange(first, last) + front, after]) for first, last in spans)
    return Windows(whole, [whole.take(places) for places in framed], spans, front, back)


def _around(whole: Encoding, frame: Frame) -> tuple[int, int]:
    return whole.prompt or len(frame.before), len(frame.after)


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
            vectors = states[~_special(text.whole)] if feature.exclude_special else states
        case Pooling.WORDS:
            assert text.whole.words is not None, "the embedder asks the tokenizer for words where a feature pools them"
            vectors = mean_of_words(_most_central(text, parts), text.whole.words)
        case _ if how is Combine.MAX:
            vectors = np.max(parts, axis=0)
        case _:
            ends = [last for _, last in text.spans]
            vectors = np.average(parts, axis=0, weights=np.diff(ends, prepend=0)).astype(np.float32)
    return finished(replace(feature, projected=0), vectors)  # each window's was projected


def _special(whole: Encoding) -> NDArray[np.bool_]:
    assert whole.special is not None, "the embedder asks the tokenizer for it where a feature excludes special tokens"
    return whole.special


def _most_central(text: Windows, parts: Sequence[Float32Array]) -> Float32Array:
    """Give one row a token of the whole text.

    Those before the text's own tokens are the first window's, those after them the last one's, the rest as said above.
    """
    front, count = text.front, len(text.whole) - text.front - text.back
    states = np.empty((len(text.whole), parts[0].shape[1]), dtype=np.float32)
    states[:front], states[front + count :] = parts[0][:front], parts[-1][len(parts[-1]) - text.back :]
    furthest = np.full(count, -1)
    for (first, last), part in zip(text.spans, parts, strict=True):
        places = np.arange(last - first)
        from_edge = np.minimum(places, places[::-1])
        better = from_edge > furthest[first:last]
        furthest[first:last][better] = from_edge[better]
        states[front + first : front + last][better] = part[front : front + last - first][better]
    return states
