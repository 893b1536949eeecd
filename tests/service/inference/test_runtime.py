"""How ONNX Runtime is loaded."""

import os
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs the affinities of Linux")
def test_it_is_loaded_on_every_core_by_a_process_that_is_kept_on_one() -> None:
    loaded = subprocess.run([sys.executable, "-c", LOAD_ON_ONE_CORE], capture_output=True, text=True, check=True)
    assert set(map(int, loaded.stdout.split())) >= os.sched_getaffinity(0)
