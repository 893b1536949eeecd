"""An encoder as data: its sizes, what differs from one kind to another, and the shape of each tensor by our names."""

from dataclasses import dataclass
from enum import StrEnum

from berth.types import Layout


class Activation(StrEnum):
    """What stands between the products of a feed-forward block."""

    GELU = "gelu"  # by the error function
    GELU_TANH = "gelu_tanh"  # by its tanh approximation
    RELU = "relu"
    SILU = "silu"  # x times the logistic function of x


class Reach(StrEnum):
    """What a layer's tokens attend to."""

    ALL = "all"
    NEAR = "near"


@dataclass(frozen=True, slots=True)
class Rotary:
    """Positions that turn queries and keys: Su et al. 2021, RoFormer, the two halves of a head being the pairs.

    The angle of pair m at position t is t / factor * theta ** (-2m / head size).
    """

    theta: float
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Buckets:
    """A number for each head and distance, added to the scores of all layers: Raffel et al. 2020, T5, both ways."""

    count: int
    max_distance: int


@dataclass(frozen=True, slots=True)
class Near:
    """Layers whose tokens attend to those at most `reach` places away, and their own rotary positions."""

    reach: int
    layers: frozenset[int]
    rotary: Rotary


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """An encoder: embeddings, then layers of attention and feed-forward, each with a norm behind it or before it."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocab_size: int
    positions: int
    """Rows of the table of positions, or, without one, the most tokens of a text."""
    type_vocab_size: int
    """Rows of the table of types; 0 where there is none."""
    epsilon: float
    activation: Activation

    embedding_size: int | None = None
    """The width of the tables where they are projected to the hidden size."""
    learned_positions: bool = True
    first_position: int = 0
    """The row of the table that is the first token's."""
    padding_id: int | None = None
    """The id whose tokens take the row before `first_position` and are not counted, as in RoBERTa."""
    task_types: int = 0
    """Rows of ERNIE's table of tasks, of which every token gets the first."""
    rotary: Rotary | None = None
    """Of all layers but the near ones."""
    buckets: Buckets | None = None
    near: Near | None = None
    gated: bool = False
    """Whether the feed-forward is outer(activation(gate x) * inner x), and not outer(activation(inner x))."""
    pre_norm: bool = False
    """Whether norms stand before attention and feed-forward, and one at the end; the first layer's first is none."""
    norm_bias: bool = True
    qkv_bias: bool = True
    attention_output_bias: bool = True
    inner_bias: bool = True
    """Of the gate too."""
    outer_bias: bool = True
    shared: tuple[int, ...] | None = None
    """Which weights each layer uses, where layers share them."""

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads

    @property
    def max_tokens(self) -> int:
        return self.positions - self.first_position

    @property
    def layout(self) -> Layout:
        """What the network's kind decides of how a batch is laid out."""
        return Layout(self.heads, None if self.near is None else self.near.reach, self.padding_id)

    def weights_of(self, layer: int) -> str:
        """Name the weights that a layer uses."""
        return f"layer.{layer if self.shared is None else self.shared[layer]}"

    def reach_of(self, layer: int) -> Reach:
        """Say what the tokens of a layer attend to."""
        return Reach.NEAR if self.near is not None and layer in self.near.layers else Reach.ALL

    def rotaries(self) -> dict[Reach, Rotary]:
        """Give the rotary positions by the reach of the layers that have them."""
        found = {} if self.rotary is None else {Reach.ALL: self.rotary}
        return found if self.near is None else found | {Reach.NEAR: self.near.rotary}

    def norm_before(self, layer: int) -> bool:
        """Say whether a layer's attention has a norm before it."""
        return self.pre_norm and layer > 0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each tensor; those of `POOLER` may be missing from a checkpoint, all others are needed."""
        shapes = self._embeddings()
        if self.buckets is not None:
            shapes["buckets.weight"] = (self.buckets.count, self.heads)
        for layer in dict.fromkeys(self.shared or range(self.layers)):
            shapes |= self._layer(layer)
        if self.pre_norm:
            shapes |= self._norm("final_norm", self.hidden_size)
        return shapes | _linear("pooler", self.hidden_size, self.hidden_size)

    def _embeddings(self) -> dict[str, tuple[int, ...]]:
        width = self.embedding_size or self.hidden_size
        positions = self.positions if self.learned_positions else 0
        tables = {"word": self.vocab_size, "position": positions, "type": self.type_vocab_size, "task": self.task_types}
        shapes: dict[str, tuple[int, ...]] = {
            f"embeddings.{table}.weight": (rows, width) for table, rows in tables.items() if rows
        }
        shapes |= self._norm("embeddings.norm", width)
        if self.embedding_size is not None:
            shapes |= _linear("embeddings.projection", self.hidden_size, width)
        return shapes

    def _layer(self, layer: int) -> dict[str, tuple[int, ...]]:
        hidden, inner, name = self.hidden_size, self.intermediate_size, f"layer.{layer}"
        shapes: dict[str, tuple[int, ...]] = {}
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{name}.{part}", hidden, hidden, self.qkv_bias)
        shapes |= _linear(f"{name}.attention_output", hidden, hidden, self.attention_output_bias)
        if not self.pre_norm or self.norm_before(layer):
            shapes |= self._norm(f"{name}.attention_norm", hidden)
        for part in ("inner", "gate") if self.gated else ("inner",):
            shapes |= _linear(f"{name}.{part}", inner, hidden, self.inner_bias)
        shapes |= _linear(f"{name}.outer", hidden, inner, self.outer_bias)
        return shapes | self._norm(f"{name}.output_norm", hidden)

    def _norm(self, name: str, size: int) -> dict[str, tuple[int, ...]]:
        weight: dict[str, tuple[int, ...]] = {f"{name}.weight": (size,)}
        return weight | {f"{name}.bias": (size,)} if self.norm_bias else weight


POOLER = ("pooler.weight", "pooler.bias")


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    weight: dict[str, tuple[int, ...]] = {f"{name}.weight": (outputs, inputs)}
    return weight | {f"{name}.bias": (outputs,)} if bias else weight
