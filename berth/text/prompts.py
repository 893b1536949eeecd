"""What a model wants to be put before a text."""

from collections.abc import Sequence
from dataclasses import replace

from berth.artifact import Manifest
from berth.errors import InvalidInputError
from berth.types import Text


def prompted(manifest: Manifest, texts: Sequence[Text], prompt_name: str | None) -> Sequence[Text]:
    """Put the named prompt, or the model's default where none is named, before each text; `""` is no prompt.

    Token ids, pairs and split texts stay as they are. Raises `InvalidInputError` where the model has no such prompt, or
    one is named for what is no text.
    """
    name = manifest.default_prompt_name if prompt_name is None else prompt_name
    if not name:
        return texts
    if name not in manifest.prompts:
        known = ", ".join(sorted(manifest.prompts)) or "none"
        raise InvalidInputError("prompt_name", f"the model has no such prompt; it has: {known}")
    if prompt_name is not None and not all(isinstance(text.value, str) for text in texts):
        raise InvalidInputError("prompt_name", "goes with texts, not with token ids, pairs or split texts")
    prompt = manifest.prompts[name]
    return [replace(text, prompt=prompt) if isinstance(text.value, str) else text for text in texts]
