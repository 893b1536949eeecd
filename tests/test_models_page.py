"""docs/models.md is what the families say of themselves."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from model_export.families import FAMILIES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def models() -> ModuleType:
    """Give the script that writes the page."""
    spec = spec_from_file_location("models_page", DOCS / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_as_it_would_be_written_now(models: ModuleType) -> None:
    assert (DOCS / "models.md").read_text(encoding="utf-8") == models.page(), "run `make models-page`"


def test_every_family_and_checkpoint_is_on_it(models: ModuleType) -> None:
    page = models.page()
    for family in FAMILIES:
        assert f"| `{family.name}`" in page
        for checkpoint in family.checkpoints:
            assert checkpoint in page


def test_its_links_lead_somewhere(models: ModuleType) -> None:
    links = re.findall(r"\]\(([^)#]+)", models.page())
    assert links
    assert all((DOCS / link).exists() for link in links)
