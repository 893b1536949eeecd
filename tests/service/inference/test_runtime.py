"""How ONNX Runtime is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOAD_ON_ONE_CORE = """
import os
import sys

class Recorder:
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            print(*os.sched_getaffinity(0))

own = {max(os.sched_getaffinity(0))}
os.sched_setaffinity(0, own)
sys.meta_path.insert(0, Recorder())
from service.inference.runtime import ort
assert ort.get_available_providers()
for thread in os.listdir("/proc/self/task"):
    assert os.sched_getaffinity(int(thread)) == own
"""


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores, and Linux")
def test_it_is_loaded_on_every_core_by_a_process_that_is_kept_on_one() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD_ON_ONE_CORE], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert set(map(int, loaded.stdout.split())) >= os.sched_getaffinity(0)
