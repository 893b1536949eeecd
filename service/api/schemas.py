"""What Berth's own requests look like, OpenAI's among them: the models that FastAPI validates and documents."""

from typing import Literal

from pydantic import BaseModel, Field

from berth.types import Metric
from service.api.fields import (
    FeatureFields,
    Flag,
    IdLists,
    Inputs,
    Native,
    OpenAIInput,
    PositiveInt,
    Source,
    StringInputs,
    Target,
    Truncate,
    example,
)

SHIP, BOAT, BREAD = "a ship in harbour", "a boat at its berth", "a slice of bread"

EncodingFormat = Literal["float", "base64"]
EmbeddingType = Literal["float32", "float16", "int8", "binary"]


class EmbeddingsRequest(BaseModel):
    """OpenAI's request; fields it does not know are ignored, as OpenAI's clients expect."""

    model_config = example(input=[SHIP, BOAT])

    input: OpenAIInput
    model: str | None = None
    encoding_format: EncodingFormat = "float"
    embedding_type: EmbeddingType = Field("float32", description="the type of a vector's numbers")
    dimensions: PositiveInt | None = Field(None, description="keep the first so many numbers and normalise again")
    user: str | None = Field(None, description="ignored")
    prompt_name: str | None = Field(None, description='a prompt of the model\'s, put before each text; "" for none')
    truncate: Truncate | None = None


class FeatureRequest(FeatureFields):
    """One representation of a text, normalised or not."""

    normalize: Flag = False


class FeaturesRequest(Native):
    """Inputs, and what to give of each."""

    model_config = example(
        inputs=[SHIP, [SHIP, BOAT], {"tokens": ["a", "ship", "in", "harbour"]}],
        features=[{"pooling": "cls"}, {"pooling": "mean", "layers": [-2, -1], "merge": "mean", "normalize": True}],
    )

    inputs: Inputs
    features: list[FeatureRequest] = Field([FeatureRequest()], min_length=1, max_length=64, fail_fast=True)
    model: str | None = None
    prompt_name: str | None = Field(None, description='a prompt of the model\'s, put before each text; "" for none')
    truncate: Truncate | None = None
    include_tokens: Flag = Field(False, description="tell each input's tokens")
    on_error: Literal["fail", "report"] = Field("fail", description="`report` answers the inputs that can be encoded")
    encoding_format: EncodingFormat = "float"


class SimilarityRequest(FeatureFields):
    """Texts to compare: each source with each target, or pairwise."""

    model_config = example(source=SHIP, target=[BOAT, BREAD])

    source: Source
    target: Target
    model: str | None = None
    metric: Metric | None = Field(None, description="the model's own where left out")
    pairwise: Flag = Field(False, description="compare each source with the target beside it")
    top_k: PositiveInt | None = Field(None, description="give the nearest targets of each source instead of scores")
    granularity: Literal["text", "token"] = Field("text", description="`token` compares two texts token by token")
    prompt_name: str | None = Field(None, description='a prompt of the model\'s, put before each text; "" for none')
    truncate: Truncate | None = None


class TokenizeRequest(Native):
    """Texts to tokenize; they are not cut."""

    model_config = example(inputs=[SHIP])

    inputs: StringInputs
    add_special_tokens: Flag = True


class DetokenizeRequest(Native):
    """Token ids to turn back into texts."""

    model_config = example(ids=[[101, 1037, 2911, 102]])

    ids: IdLists
    skip_special_tokens: Flag = True
