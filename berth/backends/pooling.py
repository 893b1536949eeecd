"""From token vectors to the vectors that were asked for, in NumPy on the packed form [tokens, hidden]."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from berth.types import Encoding, Float32Array, Int32Array, IntArray, Merge, Pooling, ResolvedFeature, Vectors

Project = Callable[[Float32Array], Float32Array]
"""A model's projection: pooled vectors [n, width] in, projected ones out."""

PARTS = {Pooling.MEAN_MAX: (Pooling.MEAN, Pooling.MAX)}
"""The poolings that are others', joined."""


def merge_layers(feature: ResolvedFeature, layers: Mapping[int, Float32Array]) -> Float32Array:
    """Merge the feature's layers, each [tokens, hidden], token by token; `concat` gives [tokens, layers x hidden]."""
    states = [layers[layer] for layer in feature.layers]
    match feature.merge:
        case Merge.WEIGHTS:
            return sum_of([np.float32(weight) * state for weight, state in zip(feature.weights, states, strict=True)])
        case _ if len(states) == 1:
            return states[0]
        case Merge.CONCAT:
            return np.concatenate(states, axis=1)
        case Merge.SUM:
            return sum_of(states)
        case Merge.MEAN:
            return sum_of(states) / np.float32(len(states))


def pool(
    feature: ResolvedFeature, hidden: Float32Array, encodings: Sequence[Encoding], project: Project | None = None
) -> Float32Array | Vectors:
    """Pool the merged hidden states [tokens of all, width] of some encodings; every pooling but `pooler`.

    Gives an array [encodings, width], or one array an encoding: [tokens, width] for `none`, [words, width] for `words`.
    All tokens count, [CLS] and [SEP] too, as in sentence-transformers, unless the feature excludes them. `project` is
    the model's projection, for a feature that passes through it.
    """
    lengths = [len(encoding) for encoding in encodings]
    if feature.exclude_special and feature.pooling is not Pooling.WORDS:  # words leave them out anyway
        kept = ~np.concatenate([encoding.special for encoding in encodings if encoding.special is not None])
        hidden, lengths = hidden[kept], np.add.reduceat(kept, _starts(lengths), dtype=np.intp).tolist()
    match feature.pooling:
        case Pooling.NONE:
            return _each(feature, np.split(hidden, np.cumsum(lengths)[:-1]))
        case Pooling.WORDS:
            states = np.split(hidden, np.cumsum(lengths)[:-1])
            return _each(feature, [mean_of_words(*pair) for pair in zip(states, map(_words, encodings), strict=True)])
    skipped = None if feature.include_prompt else _of_prompts(feature, encodings)
    if skipped is not None:
        hidden, lengths = _without_first(hidden, lengths, skipped)
    if feature.pooling is Pooling.MEAN and feature.normalize and not (feature.further or feature.projected):
        return finished(feature, _sum(hidden, lengths))  # whatever it is divided by, its direction is the sum's
    poolings = [part for pooling in feature.poolings for part in PARTS.get(pooling, (pooling,))]
    return finished(feature, joined([_rows(part, hidden, lengths, skipped) for part in poolings]), project)


def joined(parts: Sequence[Float32Array]) -> Float32Array:
    """Join the vectors of several poolings, each [encodings, width], one after the other."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def finished(feature: ResolvedFeature, vectors: Float32Array, project: Project | None = None) -> Float32Array:
    """Project pooled vectors [n, width], normalize them and cut them, as far as the feature says so."""
    if feature.projected:
        assert project is not None, "the model's own vector alone is projected, by a backend that read the projection"
        vectors = project(vectors)
    vectors = normalize(vectors) if feature.normalize else vectors
    return vectors[..., : feature.dimensions] if feature.dimensions else vectors


def mean_of_words(hidden: Float32Array, words: Int32Array) -> Float32Array:
    """Average the rows of each word; `words` [tokens] counts them and is -1 outside. Gives [words, width]."""
    inside = words >= 0
    hidden, words = hidden[inside], words[inside]
    lengths = np.unique(words, return_counts=True)[1]
    return _mean(hidden, lengths.tolist()) if len(lengths) else hidden


def normalize(vectors: Float32Array) -> Float32Array:
    """Scale the last axis to length 1; a zero vector stays zero."""
    norms = np.sqrt(np.vecdot(vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-12)))


def shortened(vectors: Float32Array, dimensions: int) -> Float32Array:
    """Keep the first numbers of each vector and normalise again: Matryoshka, Kusupati et al. 2022."""
    return normalize(vectors[:, :dimensions])


def sum_of(states: Sequence[Float32Array]) -> Float32Array:
    """Add arrays of one shape, one after the other."""
    total = states[0].copy()
    for state in states[1:]:
        total += state
    return total


def _words(encoding: Encoding) -> Int32Array:
    assert encoding.words is not None, "the embedder asks the tokenizer for words where a feature pools them"
    return encoding.words


def _each(feature: ResolvedFeature, vectors: Vectors) -> Vectors:
    return [normalize(vector) for vector in vectors] if feature.normalize else vectors


def _of_prompts(feature: ResolvedFeature, encodings: Sequence[Encoding]) -> IntArray | None:
    """Count the rows that each encoding's prompt has left; None where there is no prompt."""
    if not any(encoding.prompt for encoding in encodings):
        return None
    prompts = [encoding.prompt for encoding in encodings]
    if feature.exclude_special:
        specials = [encoding.special for encoding in encodings if encoding.special is not None]
        prompts = [int((~special[:prompt]).sum()) for special, prompt in zip(specials, prompts, strict=True)]
    return np.array(prompts, dtype=np.intp)


def _without_first(hidden: Float32Array, lengths: Sequence[int], skipped: IntArray) -> tuple[Float32Array, list[int]]:
    """Leave out the first rows of each segment of the packed rows, `skipped` [segments] of them."""
    kept = _places(lengths) >= np.repeat(skipped, lengths)
    return hidden[kept], (np.asarray(lengths) - skipped).tolist()


def _rows(
    pooling: Pooling, hidden: Float32Array, lengths: Sequence[int], skipped: IntArray | None = None
) -> Float32Array:
    """Pool each segment of the packed rows to one row; `skipped` [segments] rows of its prompt were left out before."""
    match pooling:
        case Pooling.CLS:
            return np.take(hidden, _starts(lengths), axis=0)
        case Pooling.LAST:
            return np.take(hidden, np.cumsum(lengths) - 1, axis=0)
        case Pooling.MEAN:
            return _mean(hidden, lengths)
        case Pooling.MEAN_SQRT_LEN:
            return np.asarray(_sum(hidden, lengths) / np.sqrt(np.array(lengths, dtype=np.float32))[:, None])
        case Pooling.MAX:
            return np.asarray(np.maximum.reduceat(hidden, _starts(lengths), axis=0))
        case Pooling.WEIGHTED_MEAN:  # Muennighoff 2022, SGPT: a token's weight is its position, counted from 1
            before = 0 if skipped is None else np.repeat(skipped, lengths)
            weights = (_places(lengths) + before + 1).astype(np.float32)
            starts = _starts(lengths)
            totals = np.add.reduceat(weights, starts)
            return np.asarray(np.add.reduceat(hidden * weights[:, None], starts, axis=0) / totals[:, None])
        case _:
            raise AssertionError(f"{pooling} does not pool a text to one row")


def _places(lengths: Sequence[int]) -> IntArray:
    """Number the packed rows within their segments, from 0."""
    return np.asarray(np.arange(sum(lengths)) - np.repeat(_starts(lengths), lengths))


def _starts(lengths: Sequence[int]) -> IntArray:
    return np.cumsum([0, *lengths[:-1]])


def _mean(hidden: Float32Array, lengths: Sequence[int]) -> Float32Array:
    return np.asarray(_sum(hidden, lengths) / np.array(lengths, dtype=np.float32)[:, None])


def _sum(hidden: Float32Array, lengths: Sequence[int]) -> Float32Array:
    """Add up the rows of each segment, in the same order whatever is beside it; `reduceat` takes longer."""
    sums = np.empty((len(lengths), hidden.shape[1]), dtype=np.float32)
    start = 0
    for length, row in zip(lengths, sums, strict=True):
        np.add.reduce(hidden[start : start + length], 0, out=row)
        start += length
    return sums
