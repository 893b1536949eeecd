"""Writes models.md: what the export does with each family, read off the families themselves.

    make models-page                # python docs/models.py, in the environment of the tests

Whether a target takes a network is asked of the target's graph; what a family refuses is found by asking for it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from model_export.builder import GraphBuilder
from model_export.errors import ExportError
from model_export.families import FAMILIES
from model_export.families.family import Family
from model_export.graphs import GRAPHS
from model_export.network import Network
from model_export.tensors import TensorSource
from model_export.weights import Weights

OUT = Path(__file__).with_suffix(".md")

CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 400,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "type_vocab_size": 1,
    "embedding_size": 32,
    "use_task_id": True,
    "dim": 64,
    "n_layers": 4,
    "n_heads": 4,
    "hidden_dim": 128,
}
"""A small config.json that every family reads: it has each one's names of the sizes."""

NOTHING = "\N{EN DASH}"
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}
SCALING, SCALING_BUT_NTK = "`rope_scaling`", "a `rope_scaling` but `ntk`"
PROBES: dict[str, dict[str, Any]] = {
    "relative positions (`position_embedding_type`)": {"position_embedding_type": "relative_key_query"},
    "decoders (`is_decoder`)": {"is_decoder": True},
    "more than one layer in a group (`inner_group_num`)": {"inner_group_num": 2},
    "another number of buckets than 32": {"relative_attention_num_buckets": 64},
    "rotary positions scaled otherwise than linearly": {"rope_parameters": YARN},
    SCALING: {"rope_scaling": {"type": "ntk", "factor": 2.0}},
    SCALING_BUT_NTK: {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "RMSNorm (`layer_norm_type`)": {"layer_norm_type": "rms_norm"},
    "`logn_attention_scale`": {"logn_attention_scale": True},
    "heads of a size of their own (`head_dim`)": {"head_dim": 24},
}

HEADER = """\
# Models

<!-- Written by docs/models.py (`make models-page`); a test compares. -->

```
berth serve --model intfloat/multilingual-e5-base                      # a name on the Hugging Face hub, or a folder
python -m model_export intfloat/multilingual-e5-base artifacts/e5  # the same in two steps: export, then
berth serve --model artifacts/e5
```

Berth reads the checkpoints of the families below from their `config.json`, safetensors, tokenizer and
sentence-transformers' modules. An export builds the graph, computes every layer of some texts a second time in float64
by code of its own, and compares. What it does not know it refuses in one line that names the file, the field and the
value, and it writes nothing then. Code of the checkpoint's own (`auto_map`, `trust_remote_code`) is never run: a family
that names it computes the same.

| `model_type` | checkpoints, for example | what is particular | {targets} |
|---|---|---|{rule}|
"""

FOOTER = """
Graphs for CUDA are experimental ([gpu.md](gpu.md)): an export computes them node by node on the CPU and compares;
none has run on a card yet. fp16 becomes fp32 where a checkpoint's numbers do not bear it, and the export says so.
What int8 costs and gains is in [int8.md](int8.md).

Checkpoints are named for their network; the table promises nothing about their licences. Some (BAAI/bge-m3) are pickles
on the hub, which an export refuses with the line that converts them. A checkpoint that is not named here is read all
the same if its `model_type` is.

## What each family refuses

Of all: an unknown `model_type`, code of the checkpoint's own that no family covers, weights that are quantised, a
tensor that is missing, unknown, of another shape, or holds a number that is not finite, an activation but GELU, its
tanh form, ReLU and SiLU, and a tokenizer that transformers has no fast class for. Beyond that:

| `model_type` | refuses |
|---|---|
{refusals}

Not read at all, so far: `deberta-v2`, `t5`, `roformer`, `xlnet`, JinaBERT v2 (ALiBi), NEZHA, and formats but
safetensors.
"""


def main() -> None:
    """Write the page."""
    OUT.write_text(page(), encoding="utf-8")


def page() -> str:
    """Give the page."""
    targets = [f"{target} {precision}" for target, precisions in GRAPHS.items() for precision in precisions]
    notes: dict[str, int] = {}
    rows = [
        _row([_names(family), _checkpoints(family), _particular(family), *_targets(family, notes)])
        for family in _sorted()
    ]
    header = HEADER.format(targets=" | ".join(targets), rule="|".join("---" for _ in targets))
    reasons = "".join(f"\n{number}. {reason}" for reason, number in notes.items())
    refusals = "\n".join(_row([_names(family), ", ".join(_refused(family)) or NOTHING]) for family in _sorted())
    return header + "\n".join(rows) + "\n" + (f"{reasons}\n" if reasons else "") + FOOTER.format(refusals=refusals)


def _sorted() -> list[Family]:
    return sorted(FAMILIES, key=lambda family: (family.name, family.code))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _names(family: Family) -> str:
    classes = ", ".join(f"`{name}`" for name in family.code[:1])
    return f"`{family.name}`" + (f", code {classes}" if classes else "")


def _checkpoints(family: Family) -> str:
    return ", ".join(family.checkpoints)


def _network(family: Family, **fields: Any) -> Network:
    return family.network(CONFIG | fields)


def _particular(family: Family) -> str:
    network = _network(family)
    parts = "; ".join(_parts(network))
    return ". ".join(filter(None, [parts[:1].upper() + parts[1:], family.notes.rstrip(".")])) or NOTHING


def _parts(network: Network) -> Iterator[str]:
    """Name what is other than in BERT."""
    theta = network.rotary.theta if network.rotary else 0
    reach, near_theta = (network.near.reach, network.near.rotary.theta) if network.near else (0, 0)
    particulars = {
        "positions counted from the padding's": network.padding_id is not None,
        f"rotary positions, θ {theta:.0f} by default": network.rotary,
        f"near attention, by default {reach} tokens to each side, θ {near_theta:.0f}": network.near,
        "a bias by distance": network.buckets,
        "no types": not network.type_vocab_size,
        "a table of tasks, of which each token gets the first row": network.task_types,
        "narrow tables, projected": network.embedding_size,
        "layers that share weights": network.shared,
        "a gated feed-forward": network.gated,
        "norms before the blocks and at the end": network.pre_norm,
    }
    return (what for what, has in particulars.items() if has)


def _targets(family: Family, notes: dict[str, int]) -> Iterator[str]:
    """Say of each target and precision whether there is a graph; a number refers to the reason why not."""
    nothing = Weights(cast("TensorSource", None), {}, [])
    for precisions in GRAPHS.values():
        for kind in precisions.values():
            try:
                kind(_network(family), nothing, cast("GraphBuilder", None))
            except ExportError as error:
                reason = str(error)
                number = notes.setdefault(reason[0].upper() + reason[1:] + ".", len(notes) + 1)
                yield f"no ({number})"
            else:
                yield "yes"


def _refused(family: Family) -> Iterator[str]:
    """Name what a family refuses; where it takes no scaling at all, none is named by itself."""
    refused = [what for what, fields in PROBES.items() if not _is_read(family, fields)]
    yield from (what for what in refused if not (what == SCALING_BUT_NTK and SCALING in refused))


def _is_read(family: Family, fields: dict[str, Any]) -> bool:
    try:
        _network(family, **fields)
    except ExportError:
        return False
    return True


if __name__ == "__main__":
    main()
