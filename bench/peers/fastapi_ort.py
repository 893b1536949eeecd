"""What anyone can write in an afternoon: FastAPI and ONNX Runtime, one text at a time and so without padding."""

import os
import threading

import numpy as np
import onnxruntime as ort
import orjson
from fastapi import FastAPI, Response
from pydantic import BaseModel
from tokenizers import Tokenizer

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(f"{os.environ['MODEL_ONNX']}/model.onnx", options, providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(f"{os.environ['MODEL']}/tokenizer.json")
tokenizer.enable_truncation(256)
tokenizer.no_padding()
lock = threading.Lock()
app = FastAPI()


class Request(BaseModel):
    inputs: list[str] | str


def encode(text: str) -> np.ndarray:
    ids = np.array([tokenizer.encode(text).ids], np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    vector = session.run(None, feeds)[0][0].mean(0)
    return vector / np.linalg.norm(vector)


@app.post("/embed")
def embed(request: Request) -> Response:
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    with lock:
        vectors = np.stack([encode(text) for text in texts])
    return Response(orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
