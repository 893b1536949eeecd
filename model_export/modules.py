"""The modules that sentence-transformers keeps beside an encoder: which come after it, and what each one's config says.

What each does is read in sentence-transformers 6.2: base/modules and sentence_transformer/modules.
"""

from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from berth.artifact import Activation, Dense, Normalize
from berth.types import Pooling, ResolvedFeature
from model_export.checkpoint import MODULES, Checkpoint
from model_export.errors import ExportError

POOLINGS = {
    "cls": Pooling.CLS,
    "max": Pooling.MAX,
    "mean": Pooling.MEAN,
    "mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "weightedmean": Pooling.WEIGHTED_MEAN,
    "lasttoken": Pooling.LAST,
}
"""Their modes to ours."""
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Older files have one boolean a mode; several are joined in this order."""
OF_POOLING = {"embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt", *OLD_MODES}
"""The fields of a Pooling. The dimension decides nothing: the vectors are as wide as the encoder's."""
OF_NORMALIZE = {"module_input_name", "module_output_name"}
OF_DENSE = {"in_features", "out_features", "bias", "activation_function", "use_residual", *OF_NORMALIZE}

POOLED = "sentence_embedding"
"""What they call the vector that passes from module to module."""
TRANSFORMERS = ("Transformer", "custom_st.Transformer")
"""What the encoder's module may be; the second is code of the checkpoint's own, which a family must cover."""
IN_TORCH = ("torch.nn", "torch.nn.modules", "torch.nn.modules.activation", "torch.nn.modules.linear")
"""Where an activation's class may be said to be."""


@dataclass(frozen=True, slots=True)
class DenseModule:
    """A Dense: the folder of the checkpoint that its weights are in, what it does, and whether it has a bias."""

    folder: str
    layer: Dense
    bias: bool


@dataclass(frozen=True, slots=True)
class Modules:
    """How a checkpoint's vectors are made; the defaults are sentence-transformers' own without a modules.json."""

    folder: str = ""
    """Where in the checkpoint the encoder lies."""
    transformer: str = TRANSFORMERS[0]
    """The kind of the encoder's module."""
    pooling: Pooling = Pooling.MEAN
    further_poolings: tuple[Pooling, ...] = ()
    include_prompt: bool = True
    projection: tuple[DenseModule | Normalize, ...] = ()
    """What the pooled vector passes through; the last is a Dense."""
    normalize: bool = False
    """Whether the vector is normalized at last."""

    def pooled_width(self, hidden_size: int) -> int:
        """Count the numbers of a pooled vector, before it is projected."""
        return ResolvedFeature(self.pooling, (0,), further=self.further_poolings).width(hidden_size)


class Module(BaseModel):
    """An entry of `modules.json`. Its `idx` is not looked at: the modules are in the order of the file."""

    name: str
    path: str
    type: str

    @property
    def kind(self) -> str:
        """Give the class's name; its place within sentence-transformers has changed over the versions."""
        package, _, path = self.type.partition(".")
        return path.rpartition(".")[2] if package == "sentence_transformers" else self.type


def read_modules(checkpoint: Checkpoint) -> Modules:
    """Read `modules.json` and each module's config; raises `ExportError` for what is not implemented."""
    listed = _listed(checkpoint)
    if not listed:
        return Modules()
    where, kinds = checkpoint.folder / MODULES, [module.kind for module in listed]
    for kind in kinds:
        if kind not in (*TRANSFORMERS, "Pooling", "Dense", "Normalize", "Dropout"):
            raise ExportError(f"{where}: the module {kind} is not implemented")
    # A Normalize before the pooling has no vector yet: sentence-transformers passes it by.
    pooling = kinds.index("Pooling") if "Pooling" in kinds else 0
    once = sum(map(kinds.count, TRANSFORMERS)) == kinds.count("Pooling") == 1
    if not once or kinds[0] not in TRANSFORMERS or set(kinds[1:pooling]) - {"Normalize"}:
        raise ExportError(f"{where}: {', '.join(kinds)}: expected Transformer, Pooling, and what changes its vector")
    for module in listed:
        if module.kind == "Normalize":
            _check_normalize(checkpoint.inside(module.path))
    poolings, include_prompt = _poolings(checkpoint.inside(listed[pooling].path))
    projection = _projection(checkpoint, listed[pooling + 1 :])
    normalize = projection[-1:] == [Normalize()]
    return Modules(
        folder=listed[0].path,
        transformer=kinds[0],
        pooling=poolings[0],
        further_poolings=poolings[1:],
        include_prompt=include_prompt,
        projection=tuple(projection[:-1] if normalize else projection),
        normalize=normalize,
    )


def _projection(checkpoint: Checkpoint, modules: list[Module]) -> list[DenseModule | Normalize]:
    """Read what stands behind the pooling; a Dropout does nothing but in training."""
    projection: list[DenseModule | Normalize] = []
    for module in modules:
        if module.kind == "Dense":
            projection.append(_dense(checkpoint.inside(module.path)))
        elif module.kind == "Normalize" and projection[-1:] != [Normalize()]:  # a second one in a row does nothing
            projection.append(Normalize())
    return projection


def _listed(checkpoint: Checkpoint) -> list[Module]:
    content = checkpoint.json(MODULES)
    if content is None:
        return []
    where = checkpoint.folder / MODULES
    try:
        modules = TypeAdapter(list[Module]).validate_python(content)
    except ValidationError as error:
        raise ExportError(f"{where}: not a list of modules with name, path and type") from error
    if not modules:
        raise ExportError(f"{where}: it names no module")
    names = [module.name for module in modules]
    for name in names:
        if names.count(name) > 1:
            raise ExportError(f"{where}: two modules have the name {name!r}, of which one would be lost")
    return modules


def _poolings(module: Checkpoint) -> tuple[tuple[Pooling, ...], bool]:
    """Read a Pooling: the poolings whose vectors are joined, and whether they take a prompt's tokens."""
    config = module.object("config.json")
    where = module.folder / "config.json"
    if not config:
        raise ExportError(f"{where}: no such file, but {MODULES} names it")
    _check_fields(module, config, OF_POOLING)
    old = [mode for key, mode in OLD_MODES.items() if config.get(key)]
    given = config.get("pooling_mode", old or "mean")
    modes = given if isinstance(given, list) else [given]
    for mode in modes:
        if not isinstance(mode, str) or mode not in POOLINGS:
            raise ExportError(f"{where}: pooling_mode {mode!r} is not one of {', '.join(POOLINGS)}")
    if not modes:
        raise ExportError(f"{where}: pooling_mode {given!r} names no pooling")
    include_prompt = config.get("include_prompt", True)
    if not isinstance(include_prompt, bool):
        raise ExportError(f"{where}: include_prompt {include_prompt!r} is neither true nor false")
    if modes == ["mean", "max"]:
        return (Pooling.MEAN_MAX,), include_prompt
    return tuple(POOLINGS[mode] for mode in modes), include_prompt


def _dense(module: Checkpoint) -> DenseModule:
    config = module.object("config.json")
    where = module.folder / "config.json"
    _check_fields(module, config, OF_DENSE)
    _check_vector(module, config)
    sizes = [config.get(name) for name in ("in_features", "out_features")]
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ExportError(f"{where}: in_features and out_features must be sizes, not {sizes[0]!r} and {sizes[1]!r}")
    bias, residual = config.get("bias", True), config.get("use_residual", False)
    if not isinstance(bias, bool):
        raise ExportError(f"{where}: bias {bias!r} is neither true nor false")
    if residual is not False:
        raise ExportError(f"{where}: use_residual {residual!r} is not implemented")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    package, _, name = activation.rpartition(".") if isinstance(activation, str) else ("", "", "")
    if package not in IN_TORCH or name not in get_args(Activation):
        known = ", ".join(get_args(Activation))
        raise ExportError(
            f"{where}: activation_function {activation!r} is not implemented; of torch.nn there are {known}"
        )
    return DenseModule(module.place, Dense(inputs=sizes[0], outputs=sizes[1], activation=name), bias)


def _check_normalize(module: Checkpoint) -> None:
    config = module.object("config.json")
    _check_fields(module, config, OF_NORMALIZE)
    _check_vector(module, config)


def _check_vector(module: Checkpoint, config: dict[str, Any]) -> None:
    """Raise `ExportError` where a module reads or writes something else than the pooled vector, as a ColBERT's does."""
    name = config.get("module_input_name", POOLED)
    for field, value in (("module_input_name", name), ("module_output_name", config.get("module_output_name") or name)):
        if value != POOLED:
            where = module.folder / "config.json"
            raise ExportError(f"{where}: {field} {value!r} is not implemented, {POOLED!r} alone is")


def _check_fields(module: Checkpoint, config: dict[str, Any], known: set[str]) -> None:
    for field, value in config.items():
        if field not in known:
            raise ExportError(f"{module.folder / 'config.json'}: {field} {value!r} is not implemented")
