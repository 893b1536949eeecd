"""`python -m bench.families`: what each kind of network costs over its matrix products, beside BERT's of one shape.

Every network has BERT's sizes and random weights, and is lowered as an export lowers it. In each round each of them
encodes the same batches on one thread, then its floor runs: the same products and nothing between them. What counts is
the median over rounds of a network's encode ÷ floor, as a share of BERT's in the same round.

Then the near attention of ModernBERT, of one text, beside the same layers with all keys and a mask.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from bench.floor import Floor, Sizes
from bench.machine import describe
from bench.table import table
from berth.artifact import GRAPH, SLOW_FUSIONS, Precision
from berth.backends.cpu.packing import pack
from berth.types import Encoding, Float32Array, Layout
from model_export.builder import GraphBuilder
from model_export.graphs import write_graph
from model_export.graphs.cpu import CpuGraph
from model_export.network import Activation, Buckets, Near, Network, Rotary
from model_export.tensor_file import TensorFile

BATCHES = ((24,) * 16, (32,) * 12, (12,) * 32, (64,) * 6, (40, 38, 37, 36, 36, 35, 34, 33, 32, 31, 30), (128,) * 3)
"""Lengths of texts in batches of bulk, of 384 tokens or nearly."""
LONG = 2048
"""Tokens of the text alone whose near attention is measured."""
ROUNDS = 7


def networks(bert: Network) -> dict[str, Network]:
    """Give the kinds of network, of BERT's sizes."""
    rotary = replace(bert, learned_positions=False, rotary=Rotary(10_000.0))
    gated = replace(rotary, gated=True, inner_bias=False)
    return {
        "bert": bert,
        "roberta": replace(bert, type_vocab_size=1, first_position=2, padding_id=1),
        "mpnet": replace(bert, type_vocab_size=0, first_position=2, padding_id=1, buckets=Buckets(32, 128)),
        "distilbert": replace(bert, type_vocab_size=0),
        "nomic": replace(
            gated, activation=Activation.SILU, qkv_bias=False, attention_output_bias=False, outer_bias=False
        ),
        "gte": gated,
        "jina v3": replace(rotary, type_vocab_size=1),
        "modernbert": modernbert(bert),
    }


def modernbert(bert: Network) -> Network:
    """Give ModernBERT's kind of network, two layers of three near."""
    near = frozenset(layer for layer in range(bert.layers) if layer % 3)
    return replace(
        bert,
        positions=max(bert.positions, LONG),
        type_vocab_size=0,
        learned_positions=False,
        rotary=Rotary(160_000.0),
        near=Near(64, near, Rotary(10_000.0)),
        gated=True,
        pre_norm=True,
        norm_bias=False,
        qkv_bias=False,
        attention_output_bias=False,
        inner_bias=False,
        outer_bias=False,
    )


class RandomWeights:
    """Weights of a network's shapes, small enough for the numbers to stay near 1."""

    has_pooler = False

    def __init__(self, network: Network) -> None:
        self._shapes = network.shapes()
        self._random = np.random.default_rng(0)

    def __contains__(self, name: str) -> bool:
        """Say whether the network has a tensor of this name."""
        return name in self._shapes

    def __getitem__(self, name: str) -> Float32Array:
        """Draw a tensor."""
        shape = self._shapes[name]
        if name.endswith("norm.weight"):
            return np.ones(shape, np.float32)
        return self._random.standard_normal(shape, dtype=np.float32) * np.float32(shape[-1] ** -0.5)


class Lowered:
    """A network as a graph for the CPU, loaded on one thread."""

    def __init__(self, network: Network, folder: Path, precision: Precision = "fp32") -> None:
        folder.mkdir()
        write_graph(network, RandomWeights(network), folder, "cpu", precision)  # type: ignore[arg-type]
        self._session = session_of(folder)
        self._network = network
        self._layout = network.layout
        self._inputs = [each.name for each in self._session.get_inputs()]

    def run(self, lengths: Sequence[int]) -> None:
        """Encode texts of some lengths."""
        random = np.random.default_rng(0)
        encodings = [
            Encoding(
                random.integers(2, self._network.vocab_size, size=length, dtype=np.int32), np.zeros(length, np.int32)
            )
            for length in lengths
        ]
        feeds = pack(encodings, self._layout)
        self._session.run([f"hidden_state_{self._network.layers}"], {name: feeds[name] for name in self._inputs})


@dataclass(frozen=True, slots=True)
class Contender:
    """A network and its floor."""

    lowered: Lowered
    floor: Floor

    def ratio(self, seconds: float) -> float:
        """Give encode ÷ floor, by CPU time, over some seconds of each."""
        return _cost(self.lowered.run, seconds) / _cost(self.floor.run, seconds)


def _cost(run: Callable[[Sequence[int]], None], seconds: float) -> float:
    """Give the CPU seconds of a pass over the batches; there is at least one, behind a pass that does not count."""
    for lengths in BATCHES:
        run(lengths)
    passes, started = 0, time.thread_time()
    while not passes or time.thread_time() - started < seconds:
        for lengths in BATCHES:
            run(lengths)
        passes += 1
    return (time.thread_time() - started) / passes


def compare(contenders: Mapping[str, Contender], rounds: int, seconds: float) -> list[list[str]]:
    """Measure in turns; gives a row of the table a network."""
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            ratios[name].append(contender.ratio(seconds))
    shares = {name: median(a / b for a, b in zip(each, ratios["bert"], strict=True)) for name, each in ratios.items()}
    return [[name, f"{median(each):.3f}", f"{shares[name]:.3f}"] for name, each in ratios.items()]


def near_attention(bert: Network, folder: Path, rounds: int) -> float:
    """Give the CPU time of near attention of one long text, as a share of that of all keys with a mask."""
    network = modernbert(bert)
    chunked = NearAttention(network, 64, folder / "chunked")
    masked = NearAttention(network, LONG, folder / "masked")
    return median(chunked.seconds() / masked.seconds() for _ in range(rounds))


class NearAttention:
    """The attention of a near layer and nothing else; with a reach as long as the text all keys are masked alike."""

    def __init__(self, network: Network, reach: int, folder: Path) -> None:
        folder.mkdir()
        rows: list[int | str] = ["tokens", network.hidden_size]
        with TensorFile(folder) as file:
            builder = GraphBuilder(file)
            graph = CpuGraph(network, RandomWeights(network), builder)  # type: ignore[arg-type]
            graph.inputs()
            parts = [builder.input(name, list(rows), onnx.TensorProto.FLOAT) for name in ("query", "key", "value")]
            builder.output(graph.context_of_near("near", parts), list(rows), onnx.TensorProto.FLOAT)
            model = builder.model(graph.opset)
        onnx.save_model(model, folder / GRAPH)
        self._session = session_of(folder)
        random = np.random.default_rng(0)
        feeds: dict[str, Any] = dict(pack([_text(network.vocab_size, LONG)], Layout(network.heads, reach)))
        feeds |= {part: random.standard_normal((LONG, network.hidden_size), dtype=np.float32) for part in parts}
        self._feeds = {each.name: feeds[each.name] for each in self._session.get_inputs()}

    def seconds(self) -> float:
        """Give the CPU time of a run."""
        self._session.run(None, self._feeds)
        started = time.thread_time()
        self._session.run(None, self._feeds)
        return time.thread_time() - started


def _text(vocab_size: int, length: int) -> Encoding:
    ids = np.random.default_rng(length).integers(2, vocab_size, size=length, dtype=np.int32)
    return Encoding(ids, np.zeros(length, np.int32))


def session_of(folder: Path) -> ort.InferenceSession:
    """Load a graph as the encoder on the CPU does, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(
        folder / GRAPH, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.families", description=__doc__)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--intermediate", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    print(*(f"{name}: {value}" for name, value in describe().items()), sep="\n", end="\n\n", flush=True)
    bert = Network(
        hidden_size=options.hidden,
        layers=options.layers,
        heads=options.heads,
        intermediate_size=options.intermediate,
        vocab_size=1000,
        positions=514,
        type_vocab_size=2,
        epsilon=1e-12,
        activation=Activation.GELU,
    )
    with tempfile.TemporaryDirectory(prefix="berth-families-") as made:
        folder = Path(made)
        contenders = {
            name: Contender(Lowered(network, folder / name), Floor(sizes_of(network)))
            for name, network in networks(bert).items()
        }
        print(table(["network", "encode ÷ floor", "÷ BERT's"], compare(contenders, options.rounds, options.seconds)))
        share = near_attention(bert, folder, options.rounds)
        print(f"\nnear attention of one text of {LONG} tokens, a share of that with a mask on all keys: {share:.3f}")


def sizes_of(network: Network) -> Sizes:
    """Give what the products of a network are."""
    return Sizes(network.hidden_size, network.heads, network.intermediate_size, network.layers, network.gated)


if __name__ == "__main__":
    main()
