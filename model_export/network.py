"""An encoder's sizes, and the shape of each of its tensors under our own names."""

from dataclasses import dataclass
from enum import StrEnum


class Activation(StrEnum):
    """What stands between the two products of a feed-forward block."""

    GELU = "gelu"  # by the error function
    GELU_TANH = "gelu_tanh"  # by its tanh approximation
    RELU = "relu"


@dataclass(frozen=True, slots=True)
class Network:
    """The sizes of an encoder: embeddings, then layers of attention and feed-forward, each with its norm behind it."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocab_size: int
    positions: int
    type_vocab_size: int
    epsilon: float
    activation: Activation

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each tensor; those of `POOLER` may be missing from a checkpoint, all others are needed."""
        hidden, inner = self.hidden_size, self.intermediate_size
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word.weight": (self.vocab_size, hidden),
            "embeddings.position.weight": (self.positions, hidden),
            "embeddings.type.weight": (self.type_vocab_size, hidden),
            **_norm("embeddings.norm", hidden),
        }
        for layer in range(self.layers):
            for part in ("query", "key", "value", "attention_output"):
                shapes |= _linear(f"layer.{layer}.{part}", hidden, hidden)
            shapes |= _norm(f"layer.{layer}.attention_norm", hidden)
            shapes |= _linear(f"layer.{layer}.inner", inner, hidden)
            shapes |= _linear(f"layer.{layer}.outer", hidden, inner)
            shapes |= _norm(f"layer.{layer}.output_norm", hidden)
        return shapes | _linear("pooler", hidden, hidden)


POOLER = ("pooler.weight", "pooler.bias")


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
