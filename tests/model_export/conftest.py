"""Ways to run a model, ways to make and change a checkpoint, and a way to see that an export is refused."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from berth.artifact import EXACT_PRODUCTS, GRAPH, SLOW_FUSIONS, Precision, Target, WeightBits, read_manifest
from berth.backends.cpu.packing import pack
from berth.models import DEFAULT_MODEL
from berth.types import Encoding, Float32Array
from model_export.errors import ExportError
from model_export.evaluation import Evaluation
from model_export.export import export
from model_export.verify_cuda import pack_cuda

Outputs = dict[str, Float32Array]
RunGraph = Callable[[Path, Sequence[Encoding]], Outputs]
RunTorch = Callable[[Path, Sequence[Encoding]], Outputs]
Draw = Callable[..., list[Encoding]]
Refused = Callable[..., None]
MakeTorchCheckpoint = Callable[..., Path]
Stored = dict[str, NDArray[Any]]
ChangeWeights = Callable[[Path, Callable[[Stored], object]], None]


@pytest.fixture(scope="session")
def run_graph() -> RunGraph:
    """Give a function that runs an artifact's graph on a batch.

    It gives each output by its name: [tokens, hidden], and of the pooler [sequences, hidden].
    """
    sessions: dict[Path, onnxruntime.InferenceSession] = {}

    def run(artifact: Path, encodings: Sequence[Encoding]) -> Outputs:
        if artifact not in sessions:
            options = onnxruntime.SessionOptions()
            options.add_session_config_entry(*EXACT_PRODUCTS)
            sessions[artifact] = onnxruntime.InferenceSession(
                artifact / GRAPH, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
            )
        session = sessions[artifact]
        names = [output.name for output in session.get_outputs()]
        feeds = pack(encodings, read_manifest(artifact).layout)
        needed = {value.name: feeds[value.name] for value in session.get_inputs()}
        return dict(zip(names, session.run(names, needed), strict=True))

    return run


@pytest.fixture(scope="session")
def run_torch() -> RunTorch:
    """Give a function that has transformers encode texts one by one, in float64; its answer looks like the graph's."""
    import torch  # noqa: PLC0415  # only tests that compare with it pay for it
    from transformers import BertModel  # noqa: PLC0415

    def run(checkpoint: Path, encodings: Sequence[Encoding]) -> Outputs:
        model = BertModel.from_pretrained(checkpoint, dtype=torch.float64).eval()
        parts: dict[str, list[Float32Array]] = {}
        for encoding in encodings:
            ids, types = (torch.tensor(row[None].astype(np.int64)) for row in (encoding.ids, encoding.type_ids))
            with torch.no_grad():
                result = model(input_ids=ids, token_type_ids=types, output_hidden_states=True)
            for layer, state in enumerate(result.hidden_states):
                parts.setdefault(f"hidden_state_{layer}", []).append(state[0].numpy())
            parts.setdefault("pooler_output", []).append(result.pooler_output.numpy())
        return {name: np.concatenate(part) for name, part in parts.items()}

    return run


@pytest.fixture(scope="session")
def make_torch_checkpoint(make_checkpoint: Callable[..., Path]) -> MakeTorchCheckpoint:
    """Give a function that has transformers write a small random checkpoint of one of its classes, in a torch dtype."""
    import torch  # noqa: PLC0415  # as above
    from transformers import BertConfig  # noqa: PLC0415

    def make(folder: Path, model_class: Any, dtype: Any = torch.float32) -> Path:
        config = BertConfig.from_pretrained(make_checkpoint(folder))
        torch.manual_seed(7)
        model = model_class(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(0, 0.2)
                if name.endswith("LayerNorm.weight"):
                    parameter.add_(1)
        model.to(dtype).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def change_weights() -> ChangeWeights:
    """Give a function that lets another one change a checkpoint's tensors, which it is given by name."""

    def change(checkpoint: Path, edit: Callable[[Stored], object]) -> None:
        stored = load_file(checkpoint / "model.safetensors")
        edit(stored)
        save_file(stored, checkpoint / "model.safetensors", metadata={"format": "pt"})

    return change


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Give a function that draws a random text of each length."""

    def encodings(lengths: Sequence[int], vocab_size: int = 97, type_vocab_size: int = 3) -> list[Encoding]:
        random = np.random.default_rng(1)
        return [
            Encoding(
                random.integers(vocab_size, size=length, dtype=np.int32),
                random.integers(type_vocab_size, size=length, dtype=np.int32),
            )
            for length in lengths
        ]

    return encodings


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Give a function that exports, expects one line with a text in it, and nothing left behind."""

    def check(
        checkpoint: Path | str,
        message: str,
        precision: Precision | None = None,
        target: Target = "cpu",
        int8_weights: WeightBits | None = None,
    ) -> None:
        parent = tmp_path / "artifacts"
        with pytest.raises(ExportError) as caught:
            export(str(checkpoint), parent / "refused", target, precision, int8_weights)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not parent.exists() or not list(parent.iterdir())

    return check


@pytest.fixture
def tiny_copy(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """Give a copy of the tiny checkpoint for a test to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


@pytest.fixture(scope="session")
def tiny_int8(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Give the tiny checkpoint, exported in int8 with weights in 8 bits."""
    folder = tmp_path_factory.mktemp("artifact") / "tiny-int8"
    return export(str(tiny_checkpoint), folder, precision="int8", int8_weights=8).folder


@pytest.fixture(scope="session")
def tiny_int8_w7(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Give the tiny checkpoint, exported in int8 with weights in 7 bits."""
    folder = tmp_path_factory.mktemp("artifact") / "tiny-int8-w7"
    return export(str(tiny_checkpoint), folder, precision="int8", int8_weights=7).folder


@pytest.fixture(scope="session")
def minilm_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the default model, exported in int8 with weights in 8 bits."""
    folder = tmp_path_factory.mktemp("artifact") / "minilm-int8"
    return export(DEFAULT_MODEL, folder, precision="int8", int8_weights=8).folder


@pytest.fixture(scope="session")
def minilm_int8_w7(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the default model, exported in int8 with weights in 7 bits."""
    folder = tmp_path_factory.mktemp("artifact") / "minilm-int8-w7"
    return export(DEFAULT_MODEL, folder, precision="int8", int8_weights=7).folder


@pytest.fixture(scope="session")
def tiny_cuda(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Give the tiny checkpoint, exported for CUDA in fp16."""
    return export(str(tiny_checkpoint), tmp_path_factory.mktemp("artifact") / "tiny-cuda", "cuda").folder


@pytest.fixture(scope="session")
def compute_graph() -> RunGraph:
    """Give a function that computes an artifact's CUDA graph on a batch; a row of mean pooling for each text."""
    evaluations: dict[Path, Evaluation] = {}

    def compute(artifact: Path, encodings: Sequence[Encoding]) -> Outputs:
        if artifact not in evaluations:
            evaluations[artifact] = Evaluation(artifact)
        evaluation = evaluations[artifact]
        return evaluation(pack_cuda(encodings, evaluation.inputs, read_manifest(artifact).layout))

    return compute
