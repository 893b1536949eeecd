"""POST /v1/features: every representation the encoder has, in one forward pass."""

import numpy as np
from fastapi import APIRouter, Request, Response

from berth.errors import BerthError, InvalidInputError
from berth.text.prepared import Item
from berth.types import Pooling
from service.api.answers import FeaturesAnswer, responses_of
from service.api.errors import failure_of, openai_format
from service.api.replies import ARROW, RAW, TOKEN_NUMBERS, binary_reply, encode_vector, large_json_reply, negotiate
from service.api.requests import EncoderRoute
from service.api.schemas import EncodingFormat, FeaturesRequest
from service.api.state import CurrentState

router = APIRouter(route_class=EncoderRoute, tags=["vectors"])


@router.post(
    "/v1/features",
    summary="Any layers, poolings and tokens of each input, in one forward pass",
    responses=responses_of(FeaturesAnswer, RAW, ARROW),
)
async def features(body: FeaturesRequest, request: Request, state: CurrentState) -> Response:
    """Encode inputs, each a text, a pair, or words already split, and give of each all the features asked for.

    `none` gives a vector a token, `words` a vector a word, every other pooling one vector. The tokens of
    `include_tokens` are those of the input that were read; their `start` and `end` count code points of the text they
    stand in, for words already split of the word. A pair's `word` counts on from the first text to the second.
    """
    model = state.model(body.model)
    media = negotiate(request)
    resolved = tuple(
        fields.resolve(model.manifest, place=f"features[{index}].", normalize=fields.normalize)
        for index, fields in enumerate(body.features)
    )
    if media != "json" and (len(resolved) > 1 or resolved[0].pooling in (Pooling.NONE, Pooling.WORDS)):
        raise InvalidInputError("Accept", "raw bytes and Arrow need exactly one feature, of one vector an input")
    embedded = await model.embed(
        request,
        body.inputs,
        resolved,
        body.truncate,
        prompt_name=body.prompt_name,
        table=body.include_tokens,
        limited="features",
        report=body.on_error == "report" and media == "json",
    )
    if media != "json":
        return await binary_reply(np.stack([item.vectors[0] for item in embedded.answered]), media)

    def content() -> dict[str, object]:
        data = [{"index": index, **_content(item, body.encoding_format)} for index, item in enumerate(embedded.items)]
        return {"model": model.name, "data": data, "usage": embedded.usage}

    return await large_json_reply(content, sum(map(_size, embedded.answered)))


def _size(item: Item) -> int:
    return sum(vector.size for vector in item.vectors) + TOKEN_NUMBERS * len(item.table or ())


def _content(item: Item | BerthError, encoding_format: EncodingFormat) -> dict[str, object]:
    if isinstance(item, BerthError):
        return openai_format(failure_of(item))[1]
    content: dict[str, object] = {
        "features": [encode_vector(vector, encoding_format) for vector in item.vectors],
        "token_count": item.token_count,
        "truncated": item.truncated,
    }
    return content if item.table is None else content | {"tokens": item.table}
