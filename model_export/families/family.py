"""What the export must know of a model family: how its config and its tensors are named."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from model_export.network import Network


@dataclass(frozen=True, slots=True)
class Family:
    """A rename table and a reader of `config.json`."""

    name: str
    network: Callable[[dict[str, Any]], Network]
    """Reads the sizes; raises `ExportError` for a config that asks for what the graph does not do."""
    modules: Mapping[str, str]
    """Our name of each module to the checkpoint's, `#` being the number of a layer."""
    prefix: str
    """What models with a head put before the encoder's names."""
    heads: tuple[str, ...]
    """How the names of the heads begin: no part of the encoder, left out on purpose."""
    buffers: tuple[str, ...]
    """Tensors that hold nothing learnt."""

    def rename(self, ours: str) -> str:
        """Turn our name of a tensor into the checkpoint's."""
        module, _, kind = ours.rpartition(".")
        plain = re.sub(r"\d+", "#", module)
        number = "".join(re.findall(r"\d+", module))
        return f"{self.modules[plain].replace('#', number)}.{kind}"
