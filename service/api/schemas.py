"""What the requests look like: the pydantic models that FastAPI validates and documents."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, Strict, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.inference.tokenizer import Truncate
from service.inference.types import Metric, Text, TokenIds

STRING = {"type": "string", "minLength": 1}
STRINGS = {"type": "array", "items": STRING, "minItems": 1}
IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2}

PositiveInt = Annotated[int, Strict(), Field(ge=1)]
Flag = Annotated[bool, Strict()]


@dataclass(frozen=True, slots=True)
class Texts:
    """A field that takes one text or a list of them, and which of the two it was."""

    texts: list[Text]
    single: bool


def _fail(message: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", message)


def _texts(name: str, value: object) -> Texts:
    """Read a string or a list of strings."""
    if isinstance(value, str):
        return Texts([_text(name, value)], single=True)
    if not isinstance(value, list):
        raise _fail("must be a string or a list of strings")
    if not value:
        raise _fail("must not be empty")
    return Texts([_text(f"{name}[{index}]", item, index) for index, item in enumerate(value)], single=False)


def _text(name: str, value: object, index: int | None = None) -> Text:
    place = "" if index is None else f"item {index} "
    if not isinstance(value, str):
        raise _fail(f"{place}must be a string")
    if not value:
        raise _fail(f"{place}must not be an empty string")
    return Text(name, value)


def _openai_input(value: object) -> Texts:
    """Read OpenAI's `input`: a string, a list of strings, token ids, or a list of lists of token ids."""
    if isinstance(value, list) and value and not isinstance(value[0], str):
        if isinstance(value[0], list):
            ids = [_ids(item, f"item {index} ") for index, item in enumerate(value)]
            return Texts([Text(f"input[{index}]", TokenIds(item)) for index, item in enumerate(ids)], single=False)
        return Texts([Text("input", TokenIds(_ids(value)))], single=True)
    return _texts("input", value)


def _ids(value: object, place: str = "") -> list[int]:
    # `type() is`: a boolean is an int to isinstance, and no token id
    if not isinstance(value, list) or not value or not all(type(item) is int for item in value):
        raise _fail(f"{place}must be a list of token ids, which are integers, and not empty")
    return value


def _id_lists(value: object) -> list[list[int]]:
    if not isinstance(value, list) or not value:
        raise _fail("must be a list of lists of token ids, and not empty")
    return [_ids(item, f"item {index} ") for index, item in enumerate(value)]


TEXT_SCHEMA = WithJsonSchema({"anyOf": [STRING, STRINGS]})
OpenAIInput = Annotated[
    Texts,
    PlainValidator(_openai_input),
    WithJsonSchema({"anyOf": [STRING, STRINGS, IDS, {"type": "array", "items": IDS, "minItems": 1}]}),
]
Source = Annotated[Texts, PlainValidator(partial(_texts, "source")), TEXT_SCHEMA]
Target = Annotated[Texts, PlainValidator(partial(_texts, "target")), TEXT_SCHEMA]
Inputs = Annotated[Texts, PlainValidator(partial(_texts, "inputs")), TEXT_SCHEMA]


class EmbeddingsRequest(BaseModel):
    """OpenAI's request; fields it does not know are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["a ship in harbour", "a boat at its berth"]}]})

    input: OpenAIInput
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: PositiveInt | None = Field(None, description="keep the first so many numbers and normalise again")
    user: str | None = Field(None, description="ignored")
    prompt_name: str | None = Field(None, description="a prompt of the model's, put before each text")
    truncate: Truncate = Field("end", description="what to do with a text beyond the model's maximum")


class NativeRequest(BaseModel):
    """A request of Berth's own: a field it does not know is an error."""

    model_config = ConfigDict(extra="forbid")


class SimilarityRequest(NativeRequest):
    """Texts to compare: each source with each target, or pairwise."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"source": "a ship in harbour", "target": ["a boat at its berth", "a slice of bread"]}]
        }
    )

    source: Source
    target: Target
    model: str | None = None
    metric: Metric | None = Field(None, description="the model's own where left out")
    pairwise: Flag = Field(False, description="compare each source with the target beside it")
    top_k: PositiveInt | None = Field(None, description="give the nearest targets of each source instead of scores")
    truncate: Truncate = "end"


class TokenizeRequest(NativeRequest):
    """Texts to tokenize; they are not cut."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": ["a ship in harbour"]}]})

    inputs: Inputs
    add_special_tokens: Flag = True


class DetokenizeRequest(NativeRequest):
    """Token ids to turn back into texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": [[101, 1037, 2911, 102]]}]})

    ids: Annotated[
        list[list[int]], PlainValidator(_id_lists), WithJsonSchema({"type": "array", "items": IDS, "minItems": 1})
    ]
    skip_special_tokens: Flag = True
