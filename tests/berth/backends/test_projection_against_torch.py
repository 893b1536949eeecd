"""Activations and layers of the projection against torch's own."""

import numpy as np
import pytest
import torch

from berth.artifact import Activation, DenseWeights
from berth.backends.pooling import normalize
from berth.backends.projection import ACTIVATIONS, DenseLayer, Projection
from tests.berth.backends.states import random_rows

ROWS = np.concatenate([random_rows(40), np.linspace(-100, 100, 48, dtype=np.float32).reshape(4, 12)])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torchs(name: Activation) -> None:
    found = ACTIVATIONS[name](ROWS)
    assert found.dtype == np.float32
    expected = getattr(torch.nn, name)()(torch.from_numpy(ROWS).double()).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=5e-7)


@pytest.mark.parametrize("bias", [True, False])
def test_layers_are_torchs(bias: bool) -> None:
    torch.manual_seed(1)
    first, second = torch.nn.Linear(12, 5, bias=bias), torch.nn.Linear(5, 20, bias=bias)
    weights = [
        DenseWeights(each.weight.detach().numpy(), each.bias.detach().numpy() if bias else None)
        for each in (first, second)
    ]
    activations = [ACTIVATIONS["Tanh"], ACTIVATIONS["GELU"]]
    layers = [DenseLayer(*pair) for pair in zip(weights, activations, strict=True)]
    found = Projection((layers[0], normalize, layers[1]))(ROWS)
    with torch.no_grad():
        middle = torch.nn.functional.normalize(torch.tanh(first(torch.from_numpy(ROWS))), dim=-1)
        expected = torch.nn.functional.gelu(second(middle)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
