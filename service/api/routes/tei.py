"""text-embeddings-inference's routes, for its clients: translations into Berth's own calls, nothing else.

Fields, statuses and error bodies are those that TEI's OpenAPI description gives.
"""

import asyncio
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Discriminator, Field, Tag

from berth.backends.pooling import shortened
from berth.embedder import Embedded
from berth.errors import EmptyError, EncoderError, InvalidInputError, MalformedError
from berth.features import check_dimensions
from berth.similarity import scores
from berth.text.prompts import prompted
from berth.text.tokenizer import Token
from berth.types import Metric, Pooling, ResolvedFeature, Text, TokenIds
from service.api.answers import Numbers, Rows, TeiToken, responses_of
from service.api.errors import SPECS, Failure
from service.api.fields import Flag, NonEmpty, PositiveInt, StringInputs, TeiIds, TeiInputs, example
from service.api.replies import TOKEN_NUMBERS, json_reply, large_json_reply
from service.api.requests import EncoderRoute, JsonRoute
from service.api.state import CurrentState, State

STATUSES = {SPECS[InvalidInputError]: 413, SPECS[MalformedError]: 422, SPECS[EmptyError]: 400, SPECS[EncoderError]: 424}
ERROR_TYPES = {
    400: "Empty",
    401: "Validation",
    413: "Validation",
    422: "Tokenizer",
    429: "Overloaded",
    503: "Unhealthy",
}


def tei_format(failure: Failure) -> tuple[int, dict[str, Any]]:
    """Spell a failure as TEI does."""
    status = STATUSES.get(failure.spec, failure.spec.status)
    return status, {"error": failure.message, "error_type": ERROR_TYPES.get(status, "Backend")}


class TeiErrorBody(BaseModel):
    """The body of every error."""

    error: str
    error_type: str


class TeiRoute(JsonRoute):
    """A route whose errors are TEI's."""

    error_format = staticmethod(tei_format)


class TeiEncoderRoute(EncoderRoute):
    """A route that uses the encoder and whose errors are TEI's."""

    error_format = staticmethod(tei_format)


RESPONSES: dict[int | str, dict[str, Any]] = {"4XX": {"model": TeiErrorBody}, "5XX": {"model": TeiErrorBody}}
encoding = APIRouter(route_class=TeiEncoderRoute, tags=["text-embeddings-inference"], responses=RESPONSES)
tokens = APIRouter(route_class=TeiRoute, tags=["text-embeddings-inference"], responses=RESPONSES)


class TextFields(BaseModel):
    """How TEI's clients want texts read."""

    truncate: Flag | None = Field(None, description="false refuses a text beyond the model's maximum")
    truncation_direction: Literal["Right", "Left", "right", "left"] | None = Field(
        None, description="the model's own where left out"
    )
    prompt_name: str | None = None

    def cut(self) -> str | None:
        """Say where a long text is cut, if at all; cutting is the default, as `/info` says with `auto_truncate`."""
        if self.truncate is False:
            return "error"
        if self.truncation_direction is None:
            return None
        return "start" if self.truncation_direction.lower() == "left" else "end"


class EmbedAllRequest(TextFields):
    """One vector a token."""

    model_config = example(inputs=["a ship in harbour"])

    inputs: TeiInputs


class EmbedRequest(EmbedAllRequest):
    """One vector a text."""

    normalize: Flag = True
    dimensions: PositiveInt | None = None


class Sentences(BaseModel):
    """A sentence and those to compare it with."""

    source_sentence: NonEmpty
    sentences: Annotated[list[NonEmpty], Field(min_length=1, fail_fast=True)]


class SentenceSimilarityRequest(BaseModel):
    """How near sentences are to one of them."""

    model_config = example(
        inputs={"source_sentence": "a ship in harbour", "sentences": ["a boat at its berth", "bread"]}
    )

    inputs: Sentences
    parameters: TextFields | None = None


class TokenizeRequest(BaseModel):
    """Texts to tokenize."""

    model_config = example(inputs="a ship in harbour")

    inputs: StringInputs
    add_special_tokens: Flag = True
    prompt_name: str | None = None


class DecodeRequest(BaseModel):
    """Token ids to turn back into texts."""

    model_config = example(ids=[101, 1037, 2911, 102])

    ids: TeiIds
    skip_special_tokens: Flag = True


def _root_shape(value: Any) -> str:
    inputs = value.get("inputs") if isinstance(value, dict) else None
    return "<similarity>" if isinstance(inputs, dict) else "<embed>"


RootRequest = Annotated[
    Annotated[EmbedRequest, Tag("<embed>")] | Annotated[SentenceSimilarityRequest, Tag("<similarity>")],
    Discriminator(_root_shape),
]


@encoding.post("/embed", summary="One vector a text", responses=responses_of(Rows))
async def embed(body: EmbedRequest, request: Request, state: CurrentState) -> Response:
    """Encode texts with the model's own pooling."""
    if body.dimensions is not None:
        check_dimensions(body.dimensions, state.model().manifest)
    feature = replace(state.model().sentence_feature, normalize=body.normalize)
    embedded = await _embedded(request, state, body.inputs.texts, body, feature)
    vectors = np.stack([item.vectors[0] for item in embedded.answered])
    if kept := body.dimensions or feature.dimensions:  # what is cut is normalised again, for it is asked for
        vectors = shortened(vectors, kept) if body.normalize else vectors[:, :kept]
    return await large_json_reply(lambda: np.ascontiguousarray(vectors), vectors.size)


@encoding.post("/embed_all", summary="One vector a token", responses=responses_of(list[Rows]))
async def embed_all(body: EmbedAllRequest, request: Request, state: CurrentState) -> Response:
    """Encode texts and give the last hidden state of each token, special ones too."""
    feature = ResolvedFeature(Pooling.NONE, (state.model().manifest.layers,))
    embedded = await _embedded(request, state, body.inputs.texts, body, feature)
    vectors = [item.vectors[0] for item in embedded.answered]
    return await large_json_reply(lambda: vectors, sum(vector.size for vector in vectors))


@encoding.post("/similarity", summary="How near sentences are to one of them", responses=responses_of(Numbers))
async def similarity(body: SentenceSimilarityRequest, request: Request, state: CurrentState) -> Response:
    """Give the cosine of the source sentence with each of the others."""
    source = Text("inputs.source_sentence", body.inputs.source_sentence)
    others = [Text(f"inputs.sentences[{index}]", text) for index, text in enumerate(body.inputs.sentences)]
    feature = state.model().sentence_feature
    embedded = await _embedded(request, state, [source, *others], body.parameters or TextFields(), feature)
    vectors = np.stack([item.vectors[0] for item in embedded.answered])
    return json_reply(scores(Metric.COSINE, vectors[:1], vectors[1:])[0])


@encoding.post(
    "/",
    summary="`/embed` or `/similarity`, told apart by `inputs`: what huggingface_hub's client calls",
    responses=responses_of(Rows | Numbers),
)
async def root(body: RootRequest, request: Request, state: CurrentState) -> Response:
    """Encode texts, or compare sentences where `inputs` has a `source_sentence`."""
    if isinstance(body, SentenceSimilarityRequest):
        return await similarity(body, request, state)
    return await embed(body, request, state)


@tokens.post("/tokenize", summary="A text's tokens", responses=responses_of(list[list[TeiToken]]))
async def tokenize(body: TokenizeRequest, state: CurrentState) -> Response:
    """Tokenize texts; `start` and `stop` count code points and are null for special tokens."""
    # TEI's places count from the prompt: here it is a part of the text.
    model = state.model()
    named = prompted(model.manifest, body.inputs.texts, body.prompt_name)
    texts = [Text(text.name, text.prompt + str(text.value)) for text in named]
    tables = await model.loaded().embedder.tables(texts, add_special_tokens=body.add_special_tokens)

    def content() -> list[list[dict[str, object]]]:
        pairs = zip(texts, tables, strict=True)
        return [[_simple(token, str(text.value)) for token in table] for text, table in pairs]

    return await large_json_reply(content, TOKEN_NUMBERS * sum(map(len, tables)))


@tokens.post("/decode", summary="The text that token ids stand for", responses=responses_of(list[str]))
async def decode(body: DecodeRequest, state: CurrentState) -> Response:
    """Turn token ids back into texts."""
    engine = state.model().loaded()
    engine.embedder.limits.check("ids", [Text("ids", TokenIds(ids)) for ids in body.ids])

    def content() -> Response:
        skip = body.skip_special_tokens
        return json_reply([engine.model.tokenizer.decode("ids", ids, skip_special_tokens=skip) for ids in body.ids])

    return await asyncio.to_thread(content)


async def _embedded(
    request: Request, state: State, texts: list[Text], fields: TextFields, feature: ResolvedFeature
) -> Embedded:
    model = state.model()
    return await model.embed(request, texts, [feature], fields.cut(), prompt_name=fields.prompt_name, limited="inputs")


def _simple(token: Token, text: str) -> dict[str, object]:
    """Spell a token as TEI does: its text is the slice of the input that it stands for."""
    if token.special:
        return {"id": token.id, "text": token.text, "special": True, "start": None, "stop": None}
    shown = text[token.start : token.end]
    return {"id": token.id, "text": shown, "special": False, "start": token.start, "stop": token.end}
