"""The fields that several requests have: texts and inputs as their callers write them, truncation, features."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Strict,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from berth.artifact import Manifest
from berth.features import MAX_WEIGHT, Feature
from berth.text.truncation import Combine
from berth.types import Pooling, ResolvedFeature, SplitText, Text, TextPair, TokenIds

MAX_INTEGER = 2**53 - 1
"""Beyond it an integer is not the same to every JSON parser (RFC 8259, section 6)."""

# Where a text is empty is told by the embedder, which knows it from a body of the wrong shape.
STRING: dict[str, Any] = {"type": "string", "minLength": 1}
STRINGS: dict[str, Any] = {"type": "array", "items": STRING, "minItems": 1}
WORDS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER}, "minItems": 1}
PAIR = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
SPLIT = {"type": "object", "properties": {"tokens": WORDS}, "required": ["tokens"], "additionalProperties": False}

NonEmpty = Annotated[str, WithJsonSchema(STRING)]
Integer = Annotated[int, Strict(), WithJsonSchema({"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER})]
PositiveInt = Annotated[int, Strict(), Field(ge=1, le=MAX_INTEGER)]
Flag = Annotated[bool, Strict()]

MAX_LAYERS = 128
MAX_FIELDS = 64


def example(**fields: Any) -> ConfigDict:
    """Give a request's example on the OpenAPI page."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Native(BaseModel):
    """A part of Berth's own requests: a field it does not know is an error."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _not_too_many(cls, value: Any) -> Any:
        """Stop before an error is made of each of a hundred thousand unknown fields."""
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise _failure(f"{len(value)} fields, at most {MAX_FIELDS}")
        return value


@dataclass(frozen=True, slots=True)
class Texts:
    """A field that takes one text or a list of them, and which of the two it was."""

    texts: list[Text]
    single: bool


def texts_of(name: str, value: object) -> Texts:
    """Read a string or a list of strings."""
    if isinstance(value, str):
        return Texts([Text(name, value)], single=True)
    items = _listed(value, "must be a string or a list of strings")
    return Texts([Text(f"{name}[{index}]", _string(item, index)) for index, item in enumerate(items)], single=False)


def texts_or_ids_of(name: str, value: object) -> Texts:
    """Read a string, a list of strings, token ids, or a list of lists of token ids, as OpenAI's `input` takes them."""
    if not isinstance(value, list) or not value or isinstance(value[0], str):
        return texts_of(name, value)
    if isinstance(value[0], list):
        lists = enumerate(id_lists_of(value))
        return Texts([Text(f"{name}[{index}]", TokenIds(ids)) for index, ids in lists], single=False)
    return Texts([Text(name, TokenIds(_ids(value)))], single=True)


def inputs_of(value: object) -> list[Text]:
    """Read the inputs of `/v1/features`: each a text, a pair, or words already split."""
    items = [value] if isinstance(value, str) else _listed(value, "must be a list of inputs")
    return [Text(f"inputs[{index}]", _input(item, index)) for index, item in enumerate(items)]


def id_lists_of(value: object) -> list[list[int]]:
    """Read lists of token ids."""
    items = _listed(value, "must be a list of lists of token ids")
    return [_ids(item, f"item {index} ") for index, item in enumerate(items)]


def ids_or_lists_of(value: object) -> list[list[int]]:
    """Read token ids, or lists of them."""
    items = _listed(value, "must be a list of token ids, or of such lists")
    return id_lists_of(items) if isinstance(items[0], list) else [_ids(items)]


def texts_or_pieces_of(value: object) -> list[str | list[str]]:
    """Read bert-as-service's `texts`: strings, or lists of word pieces."""
    return [_text_or_pieces(item, index) for index, item in enumerate(_listed(value, "must be a list"))]


def id_of(value: object) -> str | int | None:
    """Read the `id` that bert-as-service's clients give a request."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and type(value) is int and abs(value) <= MAX_INTEGER:  # not a boolean, which is one too
        return value
    raise _failure("must be a string, an integer of at most 2^53 - 1 either way, or null")


def _text_or_pieces(value: object, index: int) -> str | list[str]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value or not all(isinstance(piece, str) for piece in value):
        raise _failure(f"item {index} must be a string or, with is_tokenized, a list of strings")
    return value


def _input(value: object, index: int) -> str | TextPair | SplitText:
    match value:
        case str():
            return value
        case [str(first), str(second)]:
            return TextPair(first, second)
        case {"tokens": [*words], **others} if not others and words and all(isinstance(word, str) for word in words):
            return SplitText(words)
    raise _failure(f'item {index} must be a string, a pair of strings, or {{"tokens": [strings]}}')


def _listed(value: object, message: str) -> list[object]:
    if not isinstance(value, list):
        raise _failure(message)
    if not value:
        raise PydanticCustomError("empty", "must not be empty")
    return value


def _string(value: object, index: int) -> str:
    if not isinstance(value, str):
        raise _failure(f"item {index} must be a string")
    return value


def _ids(value: object, place: str = "") -> list[int]:
    # `type() is`: a boolean is an int to isinstance, and no token id
    if not isinstance(value, list) or not value or set(map(type, value)) != {int}:
        raise _failure(f"{place}must be a list of token ids, which are integers, and not empty")
    return value


def _failure(message: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{message}", {"message": message})


TEXT_SCHEMA = WithJsonSchema({"anyOf": [STRING, STRINGS]})
TEXT_OR_IDS_SCHEMA = WithJsonSchema({"anyOf": [STRING, STRINGS, IDS, {"type": "array", "items": IDS, "minItems": 1}]})
OpenAIInput = Annotated[Texts, PlainValidator(partial(texts_or_ids_of, "input")), TEXT_OR_IDS_SCHEMA]
TeiInputs = Annotated[Texts, PlainValidator(partial(texts_or_ids_of, "inputs")), TEXT_OR_IDS_SCHEMA]
Source = Annotated[Texts, PlainValidator(partial(texts_of, "source")), TEXT_SCHEMA]
Target = Annotated[Texts, PlainValidator(partial(texts_of, "target")), TEXT_SCHEMA]
StringInputs = Annotated[Texts, PlainValidator(partial(texts_of, "inputs")), TEXT_SCHEMA]
BertAsServiceId = Annotated[
    str | int | None,
    PlainValidator(id_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
                {"type": "null"},
            ]
        }
    ),
]
BertAsServiceTexts = Annotated[
    list[str | list[str]],
    PlainValidator(texts_or_pieces_of),
    WithJsonSchema({"type": "array", "items": {"anyOf": [STRING, WORDS]}, "minItems": 1}),
]
Inputs = Annotated[
    list[Text],
    PlainValidator(inputs_of),
    WithJsonSchema({"anyOf": [STRING, {"type": "array", "items": {"anyOf": [STRING, PAIR, SPLIT]}, "minItems": 1}]}),
]
TeiIds = Annotated[
    list[list[int]],
    PlainValidator(ids_or_lists_of),
    WithJsonSchema({"anyOf": [IDS, {"type": "array", "items": IDS, "minItems": 1}]}),
]
IdLists = Annotated[
    list[list[int]],
    PlainValidator(id_lists_of),
    WithJsonSchema({"type": "array", "items": IDS, "minItems": 1}),
]


class HeadCut(Native):
    """`middle` with the number of tokens to keep of the beginning; the rest of the room is the end's."""

    head: Annotated[int, Strict(), Field(ge=0, le=MAX_INTEGER)]


def _above_frame(schema: dict[str, Any]) -> None:
    """Say of a window that it must hold more than its special tokens, of which most models have two."""
    schema["anyOf"][0]["minimum"] = 3


class WindowCut(Native):
    """Read the whole text in windows of so many tokens, special ones too, whose starts are `stride` tokens apart."""

    window: Annotated[PositiveInt | None, Field(json_schema_extra=_above_frame)] = None
    stride: PositiveInt | None = None
    combine: Combine = Combine.MEAN


Weight = Annotated[float, Strict(), Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False)]


class LayerWeights(Native):
    """A number a layer: their weighted sum, ELMo's scalar mix."""

    weights: Annotated[list[Weight], Field(min_length=1, max_length=MAX_LAYERS, fail_fast=True)]


def _truncate_shape(value: Any) -> str:
    """Choose the member of a union by the value's shape, so that an error speaks of what was meant."""
    if isinstance(value, dict):
        return "<head>" if "head" in value else "<window>"
    return "<name>"


def _merge_shape(value: Any) -> str:
    return "<weights>" if isinstance(value, dict) else "<name>"


Truncate = Annotated[
    Annotated[Literal["end", "start", "middle", "error"], Tag("<name>")]
    | Annotated[HeadCut, Tag("<head>")]
    | Annotated[WindowCut, Tag("<window>")],
    Discriminator(_truncate_shape),
    Field(description="what to do with a text beyond the model's maximum; the model's own way where left out or null"),
]


class FeatureFields(Native):
    """One representation of a text."""

    pooling: Pooling | None = Field(None, description="how tokens become one vector; the model's own where left out")
    layers: Annotated[list[Integer], Field(min_length=1, max_length=MAX_LAYERS, fail_fast=True)] | None = Field(
        None, description="0 is the embeddings, 1 the first block, -1 the last; the last alone where left out"
    )
    merge: Annotated[
        Annotated[Literal["concat", "mean", "sum"], Tag("<name>")] | Annotated[LayerWeights, Tag("<weights>")],
        Discriminator(_merge_shape),
    ] = Field("concat", description="how several layers become one")
    exclude_special: Flag = Field(False, description="leave special tokens out of the pooling, not of the attention")

    @property
    def is_left_out(self) -> bool:
        """Whether no representation is asked for but the model's own."""
        return self.pooling is None and self.layers is None and self.merge == "concat" and not self.exclude_special

    def resolve(self, manifest: Manifest, *, place: str = "", normalize: bool = False) -> ResolvedFeature:
        """Make it what the model is asked for; `place` stands before fields' names in errors, as in `features[0].`."""
        merge = self.merge.weights if isinstance(self.merge, LayerWeights) else self.merge
        feature = Feature(self.pooling, self.layers, merge, normalize, self.exclude_special)
        return feature.resolve(manifest, place)
