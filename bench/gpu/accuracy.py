"""Whether the vectors are right: Berth's in one precision against torch's in float32, text by text."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from bench.gpu.options import Scale
from bench.gpu.subject import Subject
from bench.gpu.texts import encoding
from berth.artifact import Manifest, Precision
from berth.errors import EncoderError
from berth.types import Encoding, Float32Array, Merge, Pooling, ResolvedFeature, TokenSequence

LEAST_COSINE: dict[Precision, float] = {"fp16": 0.9999, "fp32": 0.999999}
BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far the vectors of one model in one precision are from torch's in float32."""

    model: str
    precision: Precision
    built_in: Precision
    """What the graph really is: where fp16 overflows, the export writes fp32."""
    texts: int
    vectors: int
    not_finite: int
    lowest_cosine: float
    worst: str
    """The feature and the length at which it is lowest."""
    largest_difference: float
    """As a share of the vector's length."""
    cosine_of_torch_fp16: float
    """The lowest cosine of torch's own fp16 to its fp32, of the mean of the last layer."""
    cosine_between_texts: float
    """The mean of it between different texts: near 1, and this comparison would tell nothing."""

    @property
    def right(self) -> bool:
        """Whether every vector is as near as its precision allows."""
        return not self.not_finite and self.lowest_cosine >= LEAST_COSINE[self.built_in]

    def as_json(self) -> dict[str, Any]:
        """Give the figures and the verdict."""
        return asdict(self) | {"right": self.right}


def features_of(manifest: Manifest) -> tuple[ResolvedFeature, ...]:
    """Give every pooling, in the graph and out of it, other layers, merges, and special tokens left out."""
    last, half = manifest.layers, manifest.layers // 2
    poolings = [pooling for pooling in Pooling if pooling is not Pooling.POOLER or manifest.has_pooler]
    return (
        *(ResolvedFeature(pooling, (last,)) for pooling in poolings),
        ResolvedFeature(Pooling.MEAN, (last,), normalize=True, exclude_special=True),
        ResolvedFeature(Pooling.MEAN, (0, half)),
        ResolvedFeature(Pooling.MAX, (half, last), Merge.MEAN),
    )


def measure_accuracy(subject: Subject, precision: Precision, scale: Scale) -> Accuracy:
    """Compare one text of each odd length, all of them in mixed batches, with the same text alone in torch."""
    manifest = subject.artifact(precision).manifest
    longest = manifest.max_tokens
    lengths = [length for length in scale.odd_lengths if length <= longest]
    features = features_of(manifest)
    sequences = [TokenSequence(encoding(length, 0, manifest.vocab_size), features) for length in lengths]
    ours = _encode(subject, precision, sequences)
    exact, half = subject.torch("fp32"), subject.torch("fp16")
    cosines: list[tuple[float, str]] = []
    differences, of_torch, means, not_finite, vectors = [0.0], [1.0], [], 0, 0
    for sequence, found in zip(sequences, ours, strict=True):
        states = torch_states(exact, sequence.encoding, subject.device)
        for feature, vector in zip(features, found, strict=True):
            right = expected(feature, states, sequence.encoding)
            vectors += 1
            if vector is None or not np.isfinite(vector).all():
                not_finite += 1
                continue
            if right.size:
                cosines.append((lowest_cosine(vector, right), f"{feature.pooling} {feature.layers} at {len(sequence)}"))
                differences.append(float(np.linalg.norm(vector - right) / np.linalg.norm(right)))
        mean = expected(ResolvedFeature(Pooling.MEAN, (manifest.layers,)), states, sequence.encoding)
        states = torch_states(half, sequence.encoding, subject.device)
        of_torch.append(
            lowest_cosine(expected(ResolvedFeature(Pooling.MEAN, (manifest.layers,)), states, sequence.encoding), mean)
        )
        means.append(mean / np.linalg.norm(mean))
    between = np.stack(means) @ np.stack(means).T
    worst = min(cosines, default=(float("nan"), "none"))
    return Accuracy(
        model=subject.name,
        precision=precision,
        built_in=manifest.precision,
        texts=len(sequences),
        vectors=vectors,
        not_finite=not_finite,
        lowest_cosine=worst[0],
        worst=worst[1],
        largest_difference=max(differences),
        cosine_of_torch_fp16=min(of_torch),
        cosine_between_texts=float(between[~np.eye(len(means), dtype=bool)].mean()),
    )


def _encode(
    subject: Subject, precision: Precision, sequences: Sequence[TokenSequence]
) -> list[list[Float32Array | None]]:
    """Encode in batches of mixed lengths; Nones for a text whose batch gave something that is no number."""
    encode = subject.encoder(precision)
    found: list[list[Float32Array | None]] = [[] for _ in sequences]
    order = np.random.default_rng(0).permutation(len(sequences)).tolist()
    while order:
        batch: list[int] = []
        tokens = 0
        while order and (not batch or tokens + len(sequences[order[-1]]) <= BATCH_TOKENS):
            batch.append(order.pop())
            tokens += len(sequences[batch[-1]])
        try:
            results = encode([sequences[place] for place in batch])
        except EncoderError as error:
            print(f"{subject.name} {precision}: {error}", flush=True)
            results = [[None] * len(sequences[place].features) for place in batch]  # type: ignore[list-item]
        for place, vectors in zip(batch, results, strict=True):
            found[place] = list(vectors)
    return found


def torch_states(model: Any, text: Encoding, device: str) -> list[Any]:
    """Give a text's hidden states by torch, each [tokens, hidden], and what its pooler gives last."""
    ids, type_ids = (torch.from_numpy(array.astype(np.int64))[None].to(device) for array in (text.ids, text.type_ids))
    with torch.inference_mode():
        output = model(input_ids=ids, token_type_ids=type_ids, output_hidden_states=True)
    pooler = getattr(output, "pooler_output", None)
    states = [state[0].float() for state in output.hidden_states]
    return [*states, None if pooler is None else pooler[0].float()]


def expected(feature: ResolvedFeature, states: list[Any], text: Encoding) -> Float32Array:
    """Pool by torch, by the definition of each pooling and not by Berth's code."""
    if feature.pooling is Pooling.POOLER:
        vectors = states[-1]
    else:
        layers = [states[layer] for layer in feature.layers]
        x = sum(layers) / len(layers) if feature.merge is Merge.MEAN else torch.cat(layers, dim=1)
        if feature.exclude_special and text.special is not None:
            x = x[torch.from_numpy(~text.special).to(x.device)]
        vectors = _pooled(feature.pooling, x, text)
    if feature.normalize:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return np.asarray(vectors.cpu().numpy(), dtype=np.float32)


def _pooled(pooling: Pooling, x: Any, text: Encoding) -> Any:
    pools: dict[Pooling, Callable[[Any], Any]] = {
        Pooling.CLS: lambda x: x[0],
        Pooling.LAST: lambda x: x[-1],
        Pooling.MEAN: lambda x: x.mean(dim=0),
        Pooling.MAX: lambda x: x.max(dim=0).values,
        Pooling.MEAN_MAX: lambda x: torch.cat([x.mean(dim=0), x.max(dim=0).values]),
        Pooling.WEIGHTED_MEAN: _weighted_mean,
        Pooling.MEAN_SQRT_LEN: lambda x: x.sum(dim=0) / len(x) ** 0.5,
        Pooling.WORDS: lambda x: _mean_of_words(x, text),
        Pooling.NONE: lambda x: x,
    }
    return pools[pooling](x)


def _weighted_mean(x: Any) -> Any:
    weights = torch.arange(1, len(x) + 1, device=x.device, dtype=x.dtype)[:, None]
    return (weights * x).sum(dim=0) / weights.sum()


def _mean_of_words(x: Any, text: Encoding) -> Any:
    assert text.words is not None, "the texts of this comparison have words"
    words = torch.from_numpy(text.words).to(x.device)
    return torch.stack([x[words == word].mean(dim=0) for word in range(int(words.max()) + 1)])


def lowest_cosine(found: Float32Array, right: Float32Array) -> float:
    """Give the lowest cosine of any vector [..., width] to the one in its place."""
    a, b = (np.atleast_2d(array).astype(np.float64) for array in (found, right))
    return float(np.min((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))))
