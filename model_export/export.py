"""An export from beginning to end: find, read, build, verify, describe, and put in place."""

import time
from dataclasses import dataclass
from pathlib import Path

from berth import __version__, artifact
from berth.artifact import GoldenVector, Manifest, Output, Precision, Source, Target, WeightBits
from berth.processor import weight_bits_here
from berth.types import Encoding
from model_export.checkpoint import Checkpoint, find_checkpoint
from model_export.comparison import Batch
from model_export.errors import ExportError, HalfError
from model_export.families import family_of
from model_export.families.family import Family
from model_export.folder import whole_folder
from model_export.graphs import GRAPHS, write_graph
from model_export.network import Network
from model_export.projection import ReadProjection, read_projection
from model_export.reference import forward
from model_export.samples import golden_encodings, random_encodings
from model_export.sentence_transformers import Usage, read_usage
from model_export.tensors import TensorSource, open_tensors
from model_export.tokenizer import ReadTokenizer, read_tokenizer
from model_export.verify import GOLDEN_LAYERS, probe_tolerance, verify, verify_rounded
from model_export.verify_cuda import verify_cuda
from model_export.weights import Weights, match_weights

LEAST_TOKENS = 3
"""Of a text: two special ones and one between."""
ADAPTER = "adapter_config.json"
"""With it transformers and peft load another model than the folder's weights are."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written, and how long it took."""

    folder: Path
    manifest: Manifest
    sizes: dict[str, int]
    """Bytes of each file."""
    left_out: list[str]
    """The checkpoint's tensors that belong to heads."""
    note: str | None
    """Why the graph is not in the precision that was asked for."""
    bits_reason: str | None
    """Why int8's weights have the bits that they have, where the export chose them."""
    seconds: float


@dataclass(frozen=True, slots=True)
class _Model:
    """All that is read of a checkpoint."""

    usage: Usage
    family: Family
    network: Network
    weights: Weights
    tokenizer: ReadTokenizer
    projection: ReadProjection
    max_tokens: int
    adapter: str | None
    source: Source


def export(
    checkpoint: str,
    out: Path,
    target: Target = "cpu",
    precision: Precision | None = None,
    int8_weights: WeightBits | None = None,
    adapter: str | None = None,
) -> Summary:
    """Export a checkpoint (a folder or a model id) to the folder `out`; `ExportError` says in one line why it can't.

    The precision is the target's own where none is given, the bits of int8's weights those that are fastest on this
    machine. Where float16 does not do for the model, the graph is in float32, and the summary says why. `adapter` names
    the one of the checkpoint's adapters that is merged, if any.
    """
    start = time.monotonic()
    precision = precision or artifact.DEFAULT_PRECISIONS[target]
    if precision not in GRAPHS[target]:
        built = " or ".join(GRAPHS[target])
        raise ExportError(f"target {target} with precision {precision} is not built yet; {target} with {built} is")
    if int8_weights is not None and precision != "int8":
        raise ExportError(f"--int8-weights {int8_weights} is for precision int8, and the precision is {precision}")
    try:
        model = _read(find_checkpoint(checkpoint), adapter)
    except OSError as error:
        raise ExportError(f"{checkpoint} cannot be read: {error}") from error
    note, weight_bits, bits_reason = None, int8_weights, None
    if precision == "int8" and weight_bits is None:
        weight_bits, bits_reason = weight_bits_here()
    with whole_folder(out) as folder:
        model.tokenizer.tokenizer.save(str(folder / artifact.TOKENIZER), pretty=False)
        try:
            figures = _write_and_verify(model, folder, target, precision, weight_bits)
        except HalfError as error:
            note, precision = str(error), "fp32"
            figures = _write_and_verify(model, folder, target, precision)
        model.projection.write(folder)
        manifest = _manifest(model, folder, figures, target, precision, weight_bits)
        (folder / artifact.MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return Summary(out, manifest, sizes, model.weights.left_out, note, bits_reason, time.monotonic() - start)


def _read(source: Checkpoint, adapter: str | None = None) -> _Model:
    usage = read_usage(source)
    encoder = source.inside(usage.folder)
    config = encoder.object("config.json")
    if not config:
        raise ExportError(f"{encoder.folder}: there is no config.json, so this is not a checkpoint")
    family = family_of(config)
    if usage.transformer not in ("Transformer", family.module):
        raise ExportError(f"{source.id}: modules.json: {usage.transformer} is code that no family covers")
    network = family.network(config)
    if network.max_tokens < LEAST_TOKENS:
        raise ExportError(f"config.json: max_position_embeddings leaves a text {network.max_tokens} tokens")
    if encoder.file(ADAPTER):
        raise ExportError(
            f"{encoder.folder / ADAPTER}: an adapter beside the weights is not merged; merge it with peft"
        )
    stored = open_tensors(encoder)
    tensors: TensorSource = stored
    if family.adapted is not None:
        tensors = family.adapted(config, stored, adapter)
    elif adapter is not None:
        raise ExportError(f"{source.id}: --adapter {adapter}: checkpoints of the family {family.name} have none")
    return _Model(
        usage,
        family,
        network,
        match_weights(network, family, tensors),
        read_tokenizer(encoder, network, usage.lower_case, family.tokenizer),
        read_projection(source, usage.projection, usage.pooled_width(network.hidden_size)),
        min(network.max_tokens, usage.max_tokens or network.max_tokens),
        adapter,
        Source(id=source.id, files=source.hashes()),  # last, for it is of what was read
    )


def _write_and_verify(
    model: _Model, folder: Path, target: Target, precision: Precision, weight_bits: WeightBits | None = None
) -> dict[str, float]:
    """Write the graph, hold it against the reference, and write the reference's vectors down as golden vectors.

    In int8 rounding alone makes a larger difference from the float64 pass than many mistakes do. So the first layer,
    which has every kind of product, is compared with a reference that rounds alike, and the golden vectors are of it.
    """
    write_graph(model.network, model.weights, folder, target, precision, weight_bits)
    texts = (
        golden_encodings(model.tokenizer.tokenizer, model.max_tokens),
        random_encodings(model.network, model.max_tokens),
    )
    batches = _batches(model.network, model.weights, texts)
    if target == "cuda":
        figures = verify_cuda(model.network, model.weights, folder, batches, precision)
    else:
        random, of_random = batches[-1]
        alone = random[:1], of_random[:1]  # goes another way through the graph than several
        figures = verify(folder, [*batches, alone], model.network.layout, precision, weight_bits)
    if precision == "int8":
        batches = _batches(model.network, model.weights, texts, precision, weight_bits, layers=1)
        figures |= verify_rounded(folder, batches, model.network.layout)
    [(real, of_real), _] = batches
    means = [text.hidden[-1].mean(axis=0).astype("float32") for text in of_real]
    artifact.write_golden_vectors(folder, [GoldenVector(*pair) for pair in zip(real, means, strict=True)])
    return figures


def _batches(
    network: Network,
    weights: Weights,
    texts: tuple[list[Encoding], list[Encoding]],
    precision: Precision = "fp32",
    weight_bits: WeightBits | None = None,
    layers: int | None = None,
) -> list[Batch]:
    """Compute what the texts must come to: the real ones and the random ones, in one pass over the weights."""
    real, random = texts
    states = forward(network, weights, [*real, *random], precision, weight_bits, layers)
    return [(real, states[: len(real)]), (random, states[len(real) :])]


def _manifest(
    model: _Model,
    folder: Path,
    verification: dict[str, float],
    target: Target,
    precision: Precision,
    weight_bits: WeightBits | None,
) -> Manifest:
    written = [artifact.TOKENIZER, artifact.GRAPH, artifact.WEIGHTS, artifact.GOLDEN_VECTORS]
    written += [artifact.PROJECTION] if model.projection.weights else []
    return Manifest(
        berth_version=__version__,
        source=model.source,
        family=model.family.name,
        adapter=model.adapter,
        outputs=_outputs(model),
        frame=model.tokenizer.frame,
        tokenizer=model.tokenizer.facts,
        hidden_size=model.network.hidden_size,
        layers=model.network.layers,
        heads=model.network.heads,
        max_tokens=model.max_tokens,
        vocab_size=model.network.vocab_size,
        type_vocab_size=max(1, model.network.type_vocab_size),
        window=model.network.layout.window,
        padding_id=model.network.padding_id,
        pooling=model.usage.pooling,
        further_poolings=model.usage.further_poolings,
        include_prompt=model.usage.include_prompt,
        projection=model.projection.layers,
        normalize=model.usage.normalize,
        truncate_dim=model.usage.truncate_dim,
        prompts=model.usage.prompts,
        default_prompt_name=model.usage.default_prompt_name,
        similarity=model.usage.similarity,
        target=target,
        precision=precision,
        weight_bits=weight_bits,
        verification=verification,
        probe_tolerance=probe_tolerance(precision, verification),
        probe_layer=GOLDEN_LAYERS[precision],
        files={name: artifact.sha256(folder / name) for name in written},
    )


def _outputs(model: _Model) -> dict[str, Output]:
    width = model.network.hidden_size
    outputs = {f"hidden_state_{layer}": Output(per="token", width=width) for layer in range(model.network.layers + 1)}
    pooler = {"pooler_output": Output(per="text", width=width, transform="tanh")} if model.weights.has_pooler else {}
    return outputs | pooler
