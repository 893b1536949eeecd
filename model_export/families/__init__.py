"""The model families: a module each, found by being here."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from model_export.errors import ExportError
from model_export.families.family import Family


def _families() -> list[Family]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Family)]


FAMILIES = _families()


def family_of(config: dict[str, Any]) -> Family:
    """Find the family of a `config.json`, by `model_type` and by the code that it names, if any.

    Raises `ExportError` where there is none: code on the hub (`auto_map`) is another network than the `model_type`
    says, unless a family computes what it does.
    """
    model_type, code = config.get("model_type"), _code(config)
    named = [family for family in FAMILIES if family.name == model_type]
    if not named:
        known = ", ".join(dict.fromkeys(family.name for family in FAMILIES))
        raise ExportError(f"model_type {model_type!r:.80} is not supported; supported: {known}")
    if not code:
        return min(named, key=lambda family: len(family.code))
    for family in named:
        if code <= set(family.code):
            return family
    raise ExportError(f"config.json: auto_map: {', '.join(sorted(code))} is code on the hub that no family covers")


def _code(config: dict[str, Any]) -> set[str]:
    """Name the class of the encoder that a config has on the hub, or else those of models with heads."""
    given = config.get("auto_map")
    if not given:
        return set()
    if not isinstance(given, dict):
        return {f"{given!r:.80}"}
    models = {role: str(place) for role, place in given.items() if str(role).startswith("AutoModel")}
    encoder = [models["AutoModel"]] if "AutoModel" in models else models.values()
    return {place.rpartition(".")[2] for place in encoder}
