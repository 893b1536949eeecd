"""The CUDA graph computed on the CPU, node by node, as its kernels compute: what an export can know without a card.

ONNX's reference evaluator walks the graph. The operators whose kernels store numbers of the graph's type are ours: they
compute in float32 and round where the kernel stores. Those of com.microsoft follow docs/ContribOperators.md of ONNX
Runtime and its contrib_ops/cuda/bert.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from berth.artifact import GRAPH
from berth.types import Float32Array
from model_export.builder import MICROSOFT
from model_export.errors import ExportError

Int32Array = NDArray[np.int32]
Feeds = Mapping[str, Int32Array | Float32Array]


class Evaluation:
    """A graph with its weights, ready to be computed, and the largest number of its own type that it ever held."""

    def __init__(self, folder: Path) -> None:
        self.largest = 0.0
        """Before it was rounded, so that it may be more than float16 holds; infinities, which follow, are not it."""
        self.largest_at = ""
        """The node that it came from."""
        self._rounded = True
        operators = [self._operator(*key, compute) for key, compute in OPERATORS.items()]
        operators.append(self._cast())
        self._evaluator = ReferenceEvaluator(onnx.load(folder / GRAPH), new_ops=operators)

    @property
    def inputs(self) -> list[str]:
        """Name the graph's inputs."""
        return list(self._evaluator.input_names)

    def __call__(self, feeds: Feeds, rounded: bool = True) -> dict[str, Float32Array]:
        """Compute all outputs; without rounding, as if all but the weights were float32."""
        self._rounded = rounded
        with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaNs are the caller's to see
            values = self._evaluator.run(None, dict(feeds))
        return {
            name: value.astype(np.float32) for name, value in zip(self._evaluator.output_names, values, strict=True)
        }

    def _operator(self, domain: str, kind: str, compute: Callable[..., Float32Array]) -> type[OpRun]:
        """Make one of the evaluator's classes of a function of float32 arrays; what it returns is stored."""
        evaluation = self

        def run(operator: Any, *inputs: Any, **_: Any) -> tuple[Any]:
            kernel = _Kernel(evaluation, operator.onnx_node.name, inputs[0].dtype)
            attributes = {given.name: getattr(operator, given.name) for given in operator.onnx_node.attribute}
            exact = (x.astype(np.float32) if x is not None and x.dtype == np.float16 else x for x in inputs)
            stored = kernel.store(compute(kernel, *exact, **attributes))
            return (stored.astype(inputs[0].dtype) if evaluation._rounded else stored,)

        return type(kind, (OpRun,), {"op_domain": domain, "_run": run})

    def _cast(self) -> type[OpRun]:
        """Make the evaluator's Cast, which is no rounding where there is to be none."""
        evaluation = self

        def run(_: Any, x: Any, to: int, **__: Any) -> tuple[Any]:
            half = to == onnx.TensorProto.FLOAT16
            return (x if half and not evaluation._rounded else x.astype(onnx.helper.tensor_dtype_to_np_dtype(to)),)

        return type("Cast", (OpRun,), {"op_domain": "", "_run": run})


class _Kernel:
    """A node while it is computed: where its numbers pass on their way to memory."""

    def __init__(self, evaluation: Evaluation, name: str, dtype: DTypeLike) -> None:
        self._evaluation = evaluation
        self._name = name
        self._dtype = dtype

    def see(self, x: Float32Array) -> Float32Array:
        """Notice the largest number of what some kernels keep in the graph's type, others in float32."""
        largest = float(np.abs(x).max(initial=0, where=np.isfinite(x)))
        if largest > self._evaluation.largest:
            self._evaluation.largest, self._evaluation.largest_at = largest, self._name
        return x

    def store(self, x: Float32Array) -> Float32Array:
        """Round to the graph's type."""
        self.see(x)
        return x.astype(self._dtype).astype(np.float32) if self._evaluation._rounded else x


def _matmul(_: _Kernel, a: Float32Array, b: Float32Array) -> Float32Array:
    product: Float32Array = a @ b
    return product


def _add(_: _Kernel, a: Float32Array, b: Float32Array) -> Float32Array:
    return a + b


def _tanh(_: _Kernel, x: Float32Array) -> Float32Array:
    return np.tanh(x)


def _skip_norm(
    kernel: _Kernel, x: Float32Array, skip: Float32Array, *vectors: Float32Array, epsilon: float
) -> Float32Array:
    """Normalize x + skip + bias, the vectors being scale, shift and perhaps a bias, each [hidden].

    The sum is stored; its mean and its variance are float32.
    """
    _demand("SkipLayerNormalization", x.shape == skip.shape, *(vector.shape == x.shape[-1:] for vector in vectors))
    scale, shift, *bias = vectors
    total = kernel.store(x + bias[0] + skip if bias else x + skip)
    centred = total - total.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(epsilon))
    rows: Float32Array = centred / deviation * scale + shift
    return rows


def _bias_gelu(kernel: _Kernel, x: Float32Array, bias: Float32Array | None = None) -> Float32Array:
    """Multiply x by the share of the normal distribution below x; the share is stored (`_Normcdf` in common.cuh)."""
    if bias is not None:
        _demand("BiasGelu", bias.shape == x.shape[-1:])
        x = kernel.store(x + bias)
    share: Float32Array = (1 + _erf(x * np.float32(0.5**0.5))) / np.float32(2)
    return np.multiply(x, kernel.store(share))


_erf = np.vectorize(math.erf, otypes=[np.float32])


def _quick_gelu(_: _Kernel, x: Float32Array, *, alpha: float) -> Float32Array:
    rows: Float32Array = x * (1 + np.tanh(x * np.float32(alpha / 2))) / np.float32(2)
    return rows


def _fast_gelu(kernel: _Kernel, x: Float32Array, bias: Float32Array | None = None) -> Float32Array:
    """The approximation by tanh, with the constants of ContribOperators.md."""
    if bias is not None:
        _demand("FastGelu", bias.shape == x.shape[-1:])
        x = kernel.store(x + bias)
    rows: Float32Array = x * (1 + np.tanh(np.float32(0.797885) * x + np.float32(0.035677) * x**3)) / np.float32(2)
    return rows


def _norm(_: _Kernel, x: Float32Array, scale: Float32Array, *shift: Float32Array, epsilon: float) -> Float32Array:
    _demand("LayerNormalization", *(vector.shape == x.shape[-1:] for vector in (scale, *shift)))
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(epsilon))
    rows: Float32Array = centred / deviation * scale
    return sum(shift, rows)


def _multiply(_: _Kernel, a: Float32Array, b: Float32Array) -> Float32Array:
    return a * b


def _rotary(
    _: _Kernel, x: Float32Array, places: NDArray[np.int64], cos: Float32Array, sin: Float32Array, **__: int
) -> Float32Array:
    """Turn the two halves of each head, x being [texts, tokens, heads * head size], places [texts, tokens]."""
    size = 2 * cos.shape[1]
    _demand("RotaryEmbedding", x.ndim == 3, places.shape == x.shape[:2], x.shape[2] % size == 0, cos.shape == sin.shape)
    heads = x.reshape(*x.shape[:2], -1, size)
    first, second = heads[..., : size // 2], heads[..., size // 2 :]
    c, s = (table[places][:, :, None] for table in (cos, sin))
    turned = np.concatenate([first * c - second * s, second * c + first * s], axis=-1)
    return turned.reshape(x.shape)


def _packed_attention(
    kernel: _Kernel,
    query: Float32Array,
    key: Float32Array | None,
    value: Float32Array | None,
    bias: Float32Array,
    token_offset: Int32Array,
    *ends: Int32Array | Float32Array,
    num_heads: int,
    scale: float,
) -> Float32Array:
    """Attend in the padded form that token_offset leads to, the keys past a text's end, by its length, left out.

    `query` is [tokens, heads, 3, head size], or queries, keys and values are [tokens, heads * head size] each; the bias
    is that of all queries, all keys, all values. `ends` are the cumulative lengths and perhaps a bias of the scores,
    [1, heads, longest, longest]. Scores are seen before they are scaled, as some kernels keep them; what the values are
    summed by is stored.
    """
    if key is not None and value is not None:
        query = np.stack([part.reshape(len(part), num_heads, -1) for part in (query, key, value)], axis=2)
    cumulative_sequence_length, *attention_bias = ends
    tokens, heads, _, size = query.shape
    sequences, longest = token_offset.shape
    _demand(
        "PackedMultiHeadAttention",
        query.shape == (tokens, num_heads, 3, size),
        bias.shape == (3 * heads * size,),
        cumulative_sequence_length.shape == (sequences + 1,),
    )
    places = token_offset.ravel()[:tokens]
    padded = np.zeros((sequences * longest, 3, heads, size), np.float32)
    padded[places] = kernel.store(query.swapaxes(1, 2) + bias.reshape(3, heads, size))
    # each [sequences, heads, longest, head size]
    queries, keys, values = padded.reshape(sequences, longest, 3, heads, size).transpose(2, 0, 3, 1, 4)
    scores = kernel.see(queries @ keys.swapaxes(2, 3)) * np.float32(scale)
    for each in attention_bias:
        _demand("PackedMultiHeadAttention", each.shape == (1, heads, longest, longest))
        scores += each
    outside = np.arange(longest) >= np.diff(cumulative_sequence_length)[:, None]
    scores += np.where(outside, np.float32(-np.inf), np.float32(0))[:, None, None]
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    context = kernel.store(shares) @ values
    rows: Float32Array = context.swapaxes(1, 2).reshape(sequences * longest, heads * size)[places]
    return rows


def _attention(
    kernel: _Kernel,
    query: Float32Array,
    key: Float32Array,
    value: Float32Array,
    _bias: None,
    _mask: None,
    attention_bias: Float32Array,
    *,
    num_heads: int,
    scale: float,
) -> Float32Array:
    """Attend in a batch, query [texts, queries, heads * head size], keys and values [texts, keys, heads * head size].

    The bias is [texts, 1, queries, keys].
    """
    texts, queries, hidden = query.shape
    keys = key.shape[1]
    _demand("MultiHeadAttention", key.shape == value.shape, attention_bias.shape == (texts, 1, queries, keys))
    q, k, v = (each.reshape(texts, -1, num_heads, hidden // num_heads).swapaxes(1, 2) for each in (query, key, value))
    scores = kernel.see(q @ k.swapaxes(2, 3)) * np.float32(scale) + attention_bias
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    context: Float32Array = kernel.store(shares) @ v
    return context.swapaxes(1, 2).reshape(texts, queries, hidden)


def _demand(kind: str, *conditions: bool) -> None:
    if not all(conditions):
        raise ExportError(f"{kind} of the graph is given shapes that it does not take")


OPERATORS: dict[tuple[str, str], Callable[..., Float32Array]] = {
    ("", "MatMul"): _matmul,
    ("", "Add"): _add,
    ("", "Tanh"): _tanh,
    (MICROSOFT, "SkipLayerNormalization"): _skip_norm,
    (MICROSOFT, "BiasGelu"): _bias_gelu,
    ("", "Mul"): _multiply,
    ("", "LayerNormalization"): _norm,
    (MICROSOFT, "Gelu"): _bias_gelu,
    (MICROSOFT, "QuickGelu"): _quick_gelu,
    (MICROSOFT, "RotaryEmbedding"): _rotary,
    (MICROSOFT, "FastGelu"): _fast_gelu,
    (MICROSOFT, "MultiHeadAttention"): _attention,
    (MICROSOFT, "PackedMultiHeadAttention"): _packed_attention,
}
