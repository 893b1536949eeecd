"""What the export must know of a model family: how its config and its tensors are named."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_export.network import Network
from model_export.tensors import Tensors, TensorSource


@dataclass(frozen=True, slots=True)
class Part:
    """One of several matrices that a checkpoint keeps in one tensor, laid one under the other."""

    module: str
    place: int
    """0 is the first."""
    count: int


Spelling = Mapping[str, str | Part]
"""Our name of each module to the checkpoint's, `#` being the number of a layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A reader of `config.json` and tables of names: all that a family of checkpoints is."""

    name: str
    """The `model_type`."""
    network: Callable[[dict[str, Any]], Network]
    """Reads the sizes; raises `ExportError` for a config that asks for what the graph does not do."""
    spellings: Sequence[Spelling]
    """The ways in which checkpoints name the tensors; the one that fits best is taken."""
    prefixes: tuple[str, ...] = ()
    """What models with a head put before the encoder's names."""
    heads: tuple[str, ...] = ()
    """How the names of the heads begin: no part of the encoder, left out on purpose."""
    buffers: tuple[str, ...] = ()
    """How the names of tensors end that hold nothing learnt."""
    code: tuple[str, ...] = ()
    """The classes of code on the hub (`auto_map`) that this family computes."""
    module: str = "Transformer"
    """sentence-transformers' module of the encoder, where it is code of the checkpoint's own."""
    adapted: Callable[[dict[str, Any], Tensors, str | None], TensorSource] | None = None
    """Merges the adapter of a name into the tensors, where checkpoints have adapters."""
    tokenizer: str | None = None
    """transformers' class of the tokenizer where it does not know the `model_type`."""
    checkpoints: tuple[str, ...] = ()
    """Well-known ones, by their names on the hub."""
    notes: str = ""
    """What a reader of docs/models.md should know."""

    def source(self, spelling: Spelling, ours: str) -> tuple[str, Part | None] | None:
        """Turn our name of a tensor into the checkpoint's, and its part there; None where the family has no such."""
        module, _, kind = ours.rpartition(".")
        found = spelling.get(re.sub(r"\d+", "#", module))
        if found is None:
            return None
        part = found if isinstance(found, Part) else None
        name = found.module if isinstance(found, Part) else found
        number = "".join(re.findall(r"\d+", module))
        return f"{name.replace('#', number)}.{kind}", part
