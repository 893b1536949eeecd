"""The service against its own OpenAPI, by schemathesis: no server error, and nothing the document does not say."""

import math
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Service
from tests.fuzz.conftest import CASES, SEED

HERE = Path(__file__).parent
COMMAND = Path(sysconfig.get_path("scripts")) / "st"
OPERATIONS = 19
VARIED = 14
"""Operations with room for as many different cases; the others have few."""


@pytest.mark.timeout(3600)
def test_all_checks_hold(fuzzed: Service, tmp_path: Path) -> None:
    each = math.ceil(CASES / VARIED)
    command = [str(COMMAND), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{fuzzed.url}/openapi.json"]
    options = ["--checks", "all", "--max-examples", str(each), "--seed", str(SEED), "--continue-on-failure"]
    run = subprocess.run(
        [*command, *options],
        cwd=tmp_path,  # it keeps what failed in a folder here
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "hooks.py")},
        capture_output=True,
        text=True,
        check=False,
    )
    print(run.stdout, run.stderr)
    assert run.returncode == 0, f"schemathesis found something; FUZZ_SEED={SEED} finds it again"
    generated = re.search(r"(\d+) generated", run.stdout)
    assert generated
    assert int(generated[1]) >= CASES
    tested = re.search(r"Tested: (\d+)", run.stdout)
    assert tested
    assert int(tested[1]) == OPERATIONS
