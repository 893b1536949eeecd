"""FastAPI and sentence-transformers, as its users write it: a plain function, no batching between requests."""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

torch.set_num_threads(1)
model = SentenceTransformer(os.environ["MODEL"], device="cpu")
app = FastAPI()


class Request(BaseModel):
    inputs: list[str] | str


@app.post("/embed")
def embed(request: Request) -> list[list[float]]:
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    return model.encode(texts, batch_size=64, show_progress_bar=False).tolist()
