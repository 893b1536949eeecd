"""POST /v1/tokenize and /v1/detokenize."""

import asyncio

from fastapi import APIRouter, Response

from berth.types import Text, TokenIds
from service.api.answers import DetokenizeAnswer, TokenizeAnswer, responses_of
from service.api.replies import TOKEN_NUMBERS, json_reply, large_json_reply
from service.api.requests import JsonRoute
from service.api.schemas import DetokenizeRequest, TokenizeRequest
from service.api.state import CurrentState

router = APIRouter(route_class=JsonRoute, tags=["tokens"])


@router.post("/v1/tokenize", summary="A text's tokens with their places in it", responses=responses_of(TokenizeAnswer))
async def tokenize(body: TokenizeRequest, state: CurrentState) -> Response:
    """Tokenize texts, uncut. `start` and `end` count code points; `word` is null for special tokens."""
    tables = await state.model().loaded().embedder.tables(body.inputs.texts, add_special_tokens=body.add_special_tokens)
    content = {"data": [{"index": index, "tokens": table} for index, table in enumerate(tables)]}
    return await large_json_reply(lambda: content, TOKEN_NUMBERS * sum(map(len, tables)))


@router.post("/v1/detokenize", summary="The text that token ids stand for", responses=responses_of(DetokenizeAnswer))
async def detokenize(body: DetokenizeRequest, state: CurrentState) -> Response:
    """Turn token ids back into texts, as far as the vocabulary keeps them: case and spacing may be lost."""
    engine = state.model().loaded()
    engine.embedder.limits.check("ids", [Text(f"ids[{index}]", TokenIds(ids)) for index, ids in enumerate(body.ids)])

    def content() -> Response:
        texts = [
            engine.model.tokenizer.decode(f"ids[{index}]", ids, skip_special_tokens=body.skip_special_tokens)
            for index, ids in enumerate(body.ids)
        ]
        return json_reply({"texts": texts})

    return await asyncio.to_thread(content)
