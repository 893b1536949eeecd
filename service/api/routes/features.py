"""POST /v1/features: every representation the encoder has, in one forward pass."""

import numpy as np
from fastapi import APIRouter, Request, Response

from service.api.answers import FeaturesAnswer, documented
from service.api.errors import failure_of, openai_shape
from service.api.replies import ARROW, RAW, TOKEN_NUMBERS, accepted, binary_reply, large_json_reply, spelled
from service.api.requests import EncoderRoute
from service.api.schemas import EncodingFormat, FeaturesRequest
from service.api.state import CurrentState
from service.api.wishes import feature_of, truncation_of
from service.errors import BerthError, InvalidInputError
from service.inference.reading import Item, Wish
from service.inference.types import Pooling

router = APIRouter(route_class=EncoderRoute, tags=["vectors"])


@router.post(
    "/v1/features",
    summary="Any layers, poolings and tokens of each input, in one forward pass",
    responses=documented(FeaturesAnswer, RAW, ARROW),
)
async def features(body: FeaturesRequest, request: Request, state: CurrentState) -> Response:
    """Encode inputs, each a text, a pair, or words already split, and give of each all the features asked for.

    `none` gives a vector a token, `words` a vector a word, every other pooling one vector. The tokens of
    `include_tokens` are those of the input that were read; their `start` and `end` count code points of the text they
    stand in, for words already split of the word. A pair's `word` counts on from the first text to the second.
    """
    state.check_model(body.model)
    media = accepted(request)
    wanted = tuple(
        feature_of(fields, state.manifest, place=f"features[{index}].", normalize=fields.normalize)
        for index, fields in enumerate(body.features)
    )
    if media != "json" and (len(wanted) > 1 or wanted[0].pooling in (Pooling.NONE, Pooling.WORDS)):
        raise InvalidInputError("Accept", "raw bytes and Arrow need exactly one feature, of one vector an input")
    wish = Wish(
        wanted,
        truncation_of(body.truncate, state.manifest),
        table=body.include_tokens,
        limited="features",
        report=body.on_error == "report" and media == "json",
    )
    embedded = await state.embed(request, state.prompted(body.inputs, body.prompt_name), wish)
    if media != "json":
        return await binary_reply(np.stack([item.vectors[0] for item in embedded.answered]), media)

    def content() -> dict[str, object]:
        data = [{"index": index, **_content(item, body.encoding_format)} for index, item in enumerate(embedded.items)]
        return {"model": state.model_name, "data": data, "usage": embedded.usage}

    return await large_json_reply(content, sum(map(_size, embedded.answered)))


def _size(item: Item) -> int:
    return sum(vector.size for vector in item.vectors) + TOKEN_NUMBERS * len(item.table or ())


def _content(item: Item | BerthError, encoding_format: EncodingFormat) -> dict[str, object]:
    if isinstance(item, BerthError):
        return openai_shape(failure_of(item))[1]
    content: dict[str, object] = {
        "features": [spelled(vector, encoding_format) for vector in item.vectors],
        "token_count": item.token_count,
        "truncated": item.truncated,
    }
    return content if item.table is None else content | {"tokens": item.table}
