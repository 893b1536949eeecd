"""A BERT checkpoint of safetensors as the TensorFlow 1 checkpoint that bert-as-service reads. Runs in Python 3.7.

python tf_checkpoint.py MODEL OUT
"""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

RENAMED = (
    ("layer.", "layer_"),
    ("word_embeddings.weight", "word_embeddings"),
    ("position_embeddings.weight", "position_embeddings"),
    ("token_type_embeddings.weight", "token_type_embeddings"),
    (".", "/"),
    ("LayerNorm/weight", "LayerNorm/gamma"),
    ("LayerNorm/bias", "LayerNorm/beta"),
    ("weight", "kernel"),
)


def tensors(path):
    """Read the float32 tensors; safetensors itself has no release for this Python that is needed for so little."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            first, last = entry["data_offsets"]
            data = raw[8 + length + first : 8 + length + last]
            yield name, np.frombuffer(data, dtype=np.float32).reshape(entry["shape"])


def renamed(name):
    name = "bert." + name
    for ours, theirs in RENAMED:
        name = name.replace(ours, theirs)
    return name


def main(source, out):
    out.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), tf.Session() as session:
        variables = []
        for name, values in tensors(source / "model.safetensors"):
            is_product = name.endswith(".weight") and "LayerNorm" not in name and "embeddings" not in name
            array = np.ascontiguousarray(values.T) if is_product else values  # torch: [out, in], TensorFlow: [in, out]
            placeholder = tf.placeholder(tf.float32, array.shape)
            variables.append(tf.get_variable(renamed(name), shape=array.shape, dtype=tf.float32))
            session.run(variables[-1].assign(placeholder), {placeholder: array})
        tf.train.Saver(variables).save(session, str(out / "bert_model.ckpt"), write_meta_graph=False)
    shutil.copy(str(source / "vocab.txt"), str(out / "vocab.txt"))
    shutil.copy(str(source / "config.json"), str(out / "bert_config.json"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
