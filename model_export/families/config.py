"""What the readers of `config.json` have in common."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError

from model_export.errors import ExportError
from model_export.network import Activation, Rotary

ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "relu": Activation.RELU,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
}
"""By transformers' names, of which several are of one function."""

Layers = Annotated[int, Field(ge=1, le=1000)]
Positions = Annotated[int, Field(ge=3, le=1 << 17)]


class AnyConfig(BaseModel):
    """Fields that any checkpoint may have, and of which none is obeyed."""

    pruned_heads: dict[str, Any] | None = Field(default=None, max_length=0)
    quantization_config: None = None
    transformers_weights: None = None
    """Another file of weights that transformers would read."""


class SizedConfig(AnyConfig):
    """The sizes, by the names that most configs have for them."""

    hidden_size: PositiveInt
    num_hidden_layers: Layers
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    vocab_size: PositiveInt
    max_position_embeddings: Positions


class Config(SizedConfig):
    """The fields that decide how most encoders compute; defaults are for files older than the field."""

    hidden_act: str
    layer_norm_eps: PositiveFloat = 1e-12
    position_embedding_type: Literal["absolute"] | None = None
    is_decoder: Literal[False] | None = None
    add_cross_attention: Literal[False] | None = None

    @property
    def activation(self) -> Activation:
        return activation_of("hidden_act", self.hidden_act)

    def sizes(self) -> dict[str, Any]:
        """Give the fields of a network that are called the same in all of them."""
        check_heads(self.hidden_size, self.num_attention_heads)
        return {
            "hidden_size": self.hidden_size,
            "layers": self.num_hidden_layers,
            "heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "vocab_size": self.vocab_size,
            "positions": self.max_position_embeddings,
            "epsilon": self.layer_norm_eps,
            "activation": self.activation,
        }


Kind = TypeVar("Kind", bound=BaseModel)


def read(kind: type[Kind], config: dict[str, Any]) -> Kind:
    """Read a family's fields; raises `ExportError`, which names the field, for what is missing or not implemented."""
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        found = f", not {config[place]!r:.80}" if place in config else ""
        raise ExportError(f"config.json: {place}: {first['msg']}{found}") from error


def activation_of(field: str, name: str) -> Activation:
    """Find an activation by transformers' name."""
    if name not in ACTIVATIONS:
        raise ExportError(f"config.json: {field} {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def check_heads(hidden_size: int, heads: int, field: str = "num_attention_heads") -> None:
    """Raise `ExportError` where the heads do not share the hidden size out."""
    if hidden_size % heads:
        raise ExportError(f"config.json: hidden_size {hidden_size} is not a multiple of {field} {heads}")


def check_even_heads(hidden_size: int, heads: int) -> None:
    """Raise `ExportError` where a head has no two halves to turn."""
    if hidden_size // heads % 2:
        raise ExportError(f"config.json: heads of {hidden_size // heads} numbers have no halves for rotary positions")


def rotary_of(parameters: dict[str, Any] | None, theta: float, field: str = "rope_parameters") -> Rotary:
    """Read transformers' dict of rotary positions; `theta` is what it is where the dict does not say it."""
    given = dict(parameters or {})
    kind = given.pop("rope_type", given.pop("type", "default"))
    given.pop("type", None)
    base, factor = given.pop("rope_theta", theta), given.pop("factor", 1.0)
    if given.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ExportError(f"config.json: {field}: a partial_rotary_factor is not implemented")
    if kind not in ("default", "linear") or given:
        what = ", ".join(f"{key} {value!r:.40}" for key, value in {"rope_type": kind, **given}.items())
        raise ExportError(f"config.json: {field}: {what} is not implemented; default and linear are")
    for name, number in (("rope_theta", base), ("factor", factor)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1e12:
            raise ExportError(f"config.json: {field}: {name} {number!r} is not a positive number")
    return Rotary(float(base), float(factor) if kind == "linear" else 1.0)
