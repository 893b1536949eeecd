"""bert-as-service's HTTP routes, for the users it left behind: translations into Berth's own calls, nothing else.

What it fixed at its start are settings here: the pooling and the layers (`REDUCE_MEAN` of layer -2 by default), without
normalisation. Its `mask_cls_sep` is not offered.
"""

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from berth import __version__
from berth.errors import MalformedError
from berth.text.tokenizer import Tokenizer
from berth.types import Text, TextPair, TokenIds
from service.api.answers import EncodeAnswer, ServerStatus, responses_of
from service.api.fields import STRING, WORDS, BertAsServiceId, BertAsServiceTexts, Flag
from service.api.replies import json_reply, large_json_reply
from service.api.requests import EncoderRoute
from service.api.state import CurrentState

SEPARATOR = " ||| "
"""Between the two texts of a pair."""

router = APIRouter(route_class=EncoderRoute, tags=["bert-as-service"])


EITHER_TEXTS_OR_PIECES: dict[str, Any] = {
    "examples": [{"id": 1, "texts": ["a ship in harbour"]}],
    "if": {"properties": {"is_tokenized": {"const": True}}, "required": ["is_tokenized"]},
    "then": {"properties": {"texts": {"items": WORDS}}},
    "else": {"properties": {"texts": {"items": STRING}}},
}


class EncodeRequest(BaseModel):
    """bert-as-service's request."""

    model_config = ConfigDict(json_schema_extra=EITHER_TEXTS_OR_PIECES)

    id: BertAsServiceId = None
    texts: BertAsServiceTexts
    is_tokenized: Flag = False


@router.post("/encode", summary="One vector a text, pooled as the settings say", responses=responses_of(EncodeAnswer))
async def encode(body: EncodeRequest, request: Request, state: CurrentState) -> Response:
    """Encode texts, pairs written as `first ||| second`, or with `is_tokenized` lists of word pieces."""
    model = state.model()
    read = partial(_texts, body, model.loaded().model.tokenizer)
    texts = await asyncio.to_thread(read) if body.is_tokenized else read()  # many pieces may be looked up
    embedded = await model.embed(request, texts, [model.encode_feature], limited="texts")
    vectors = [item.vectors[0] for item in embedded.answered]
    content = {"id": body.id, "result": vectors, "status": 200}
    return await large_json_reply(lambda: content, sum(vector.size for vector in vectors))


def _texts(body: EncodeRequest, tokenizer: Tokenizer) -> list[Text]:
    texts = []
    for index, text in enumerate(body.texts):
        if isinstance(text, list) != body.is_tokenized:
            raise MalformedError(f"texts[{index}]", "must be a list of strings with is_tokenized, else a string")
        if SEPARATOR.strip() in text and body.is_tokenized:
            raise MalformedError(f"texts[{index}]", "a pair must be one string, without is_tokenized")
        name = f"texts[{index}]"
        value = _text_or_pair(text) if isinstance(text, str) else TokenIds(tokenizer.framed_ids(name, text))
        texts.append(Text(name, value))
    return texts


def _text_or_pair(text: str) -> str | TextPair:
    first, separator, second = text.strip().rpartition(SEPARATOR)
    return TextPair(first, second) if separator else text


status_router = APIRouter(tags=["bert-as-service"])


@status_router.get("/status/server", summary="What the service is", responses=responses_of(ServerStatus))
async def status(state: CurrentState) -> Response:
    """Give those of bert-as-service's fields that mean something here."""
    settings, model = state.settings, state.model()
    return json_reply(
        {
            "status": 200,
            "server_version": __version__,
            "model_dir": model.name,
            "max_seq_len": model.manifest.max_tokens,
            "pooling_strategy": settings.encode_pooling,
            "pooling_layer": settings.encode_layers,
            "http_port": settings.port,
            "cpu": model.manifest.target == "cpu",
            "num_worker": 1,
        }
    )
