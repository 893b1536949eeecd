"""Checkpoints that sentence-transformers saved, module by module: their vectors served, beside its own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, Pooling
from torch import nn

from berth.encoder import Encoder
from model_export.export import export

HIDDEN = 60
TEXTS = ["hello world", "the vector of a text", "x", "in the world, and to the text! 42", "vector " * 60]
PROMPTS = {"query": "find the text: ", "passage": ""}

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path, tiny_checkpoint: Path) -> Save:
    """Give a function that has sentence-transformers save the tiny encoder with other modules behind it."""

    def save(modules: Sequence[Any], **options: Any) -> Path:
        folder = tmp_path / "saved"
        model = SentenceTransformer(modules=[Transformer(str(tiny_checkpoint)), *modules], device="cpu", **options)
        model.save(str(folder), create_model_card=False)
        return folder

    return save


def check(folder: Path, prompt_names: Sequence[str | None] = (None,)) -> Any:
    """Compare the vectors that are served of a checkpoint with sentence-transformers'; gives the last ones."""
    model = SentenceTransformer(str(folder), device="cpu")
    expected = None
    with Encoder(export(str(folder), folder.parent / "artifact").folder, threads=1) as encoder:
        for name in prompt_names:
            named = {"prompt": ""} if name == "" else {"prompt_name": name}
            expected = model.encode(TEXTS, **named)
            vectors = encoder.encode(TEXTS, prompt_name=name)
            assert vectors.shape == expected.shape
            np.testing.assert_allclose(vectors, expected, atol=1e-5 * np.abs(expected).max())
    return expected


@pytest.mark.parametrize("include_prompt", [True, False], ids=["prompt pooled", "prompt left out"])
@pytest.mark.parametrize(
    "modes",
    [
        ("cls",),
        ("max",),
        ("mean",),
        ("mean_sqrt_len_tokens",),
        ("weightedmean",),
        ("lasttoken",),
        ("cls", "mean"),
        ("max", "mean"),
        ("mean", "max"),
        ("weightedmean", "lasttoken"),
        ("mean_sqrt_len_tokens", "max", "mean", "cls"),
    ],
    ids=" ".join,
)
def test_poolings(save: Save, modes: tuple[str, ...], include_prompt: bool) -> None:
    folder = save([Pooling(HIDDEN, modes, include_prompt=include_prompt)], prompts=PROMPTS)
    assert check(folder, [None, "query", "passage"]).shape == (len(TEXTS), HIDDEN * len(modes))


def dense(inputs: int, outputs: int, activation: nn.Module, bias: bool = True) -> Dense:
    torch.manual_seed(inputs + outputs)
    weight = torch.randn(outputs, inputs) / inputs**0.5
    return Dense(inputs, outputs, bias, activation, init_weight=weight, init_bias=torch.randn(outputs))


@pytest.mark.parametrize(
    "modules",
    [
        [dense(HIDDEN, 24, nn.Tanh())],
        [dense(HIDDEN, 24, nn.Tanh()), Normalize()],
        [dense(HIDDEN, 90, nn.Identity(), bias=False), Normalize()],
        [Normalize(), dense(HIDDEN, 24, nn.GELU())],
        [Normalize(), dense(HIDDEN, 24, nn.ReLU()), Normalize(), dense(24, 7, nn.Sigmoid()), Normalize()],
        [dense(HIDDEN, 80, nn.SiLU()), dense(80, 24, nn.ELU())],
        [dense(HIDDEN, 24, nn.LeakyReLU()), Normalize(), Normalize(), Dropout(0.5)],
        [Dropout(0.3), Normalize()],
    ],
    ids=lambda modules: " ".join(type(module).__name__ for module in modules),
)
def test_what_stands_behind_the_pooling(save: Save, modules: list[Any]) -> None:
    check(save([Pooling(HIDDEN, "mean"), *modules]))


def test_several_poolings_are_projected_together(save: Save) -> None:
    modules = [Pooling(HIDDEN, ("cls", "mean"), include_prompt=False), dense(2 * HIDDEN, 24, nn.Tanh()), Normalize()]
    folder = save(modules, prompts=PROMPTS, default_prompt_name="query")
    check(folder, [None, "query", "passage", ""])


def test_a_normalize_before_the_pooling_has_nothing_to_normalize(save: Save) -> None:
    check(save([Normalize(), Pooling(HIDDEN, "mean")]))


@pytest.mark.parametrize("modules", [[], [Normalize()], [dense(HIDDEN, 24, nn.Tanh()), Normalize()]], ids=len)
@pytest.mark.parametrize("kept", [16, 1000])
def test_cut_vectors_are_not_normalized_again(save: Save, modules: list[Any], kept: int) -> None:
    folder = save([Pooling(HIDDEN, "mean"), *modules], truncate_dim=kept)
    vectors = check(folder)
    assert vectors.shape[1] == min(kept, 24 if len(modules) == 2 else HIDDEN)
    assert (np.abs(np.linalg.norm(vectors, axis=1) - 1) > 1e-2).all() == (kept == 16 or not modules)


def test_a_checkpoint_as_older_versions_saved_it(save: Save) -> None:
    folder = save([Pooling(HIDDEN, ("cls", "mean")), dense(2 * HIDDEN, 24, nn.Tanh())])
    (folder / "0_Transformer").mkdir()
    for path in [*folder.glob("*.json"), folder / "model.safetensors"]:
        if path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(folder / "0_Transformer" / path.name)
    names = ["Transformer", "Pooling", "Dense"]
    paths = ["0_Transformer", "1_Pooling", "2_Dense"]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{name}"}
        for place, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    old = {
        "word_embedding_dimension": HIDDEN,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": True,
        "pooling_mode_max_tokens": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old))
    (folder / "0_Transformer" / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 12, "do_lower_case": True})
    )
    check(folder)


def test_the_modules_are_in_the_order_of_the_file(save: Save) -> None:
    folder = save([Pooling(HIDDEN, "mean"), Normalize(), dense(HIDDEN, HIDDEN, nn.Identity())])
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["idx"], modules[3]["idx"] = 3, 2
    (folder / "modules.json").write_text(json.dumps(modules))
    check(folder)
