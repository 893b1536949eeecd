"""BERT's activations are those of transformers."""

import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN

from model_export import reference
from model_export.families.config import ACTIVATIONS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_one_that_transformers_has_by_its_name(name: str) -> None:
    x = np.linspace(-8, 8, 1001)
    ours = reference.ACTIVATIONS[ACTIVATIONS[name]]
    np.testing.assert_allclose(ours(x), ACT2FN[name](torch.tensor(x)).numpy(), rtol=0, atol=1e-12)
