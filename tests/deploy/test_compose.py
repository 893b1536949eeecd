"""What docker-compose.yml hands on: every setting that a container can be given from outside, and no others."""

from pathlib import Path

import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
OF_THE_IMAGE = {"host", "port", "cache_dir"}
"""Set in the Dockerfile; what is published instead of the port is BERTH_PORT's."""
OF_THE_GPU = {"device", "precision", "gpu_memory_limit"}
"""Handed on by deploy/compose.cuda.yml."""
OF_THE_BUILD = {"int8_weights"}
"""The model in the image has them, as INT8_WEIGHTS says."""
WITH_MORE = {"api_keys_file", "metrics_port", "tracing"}
"""They want a volume, a port or packages besides."""
BOUND = {"shutdown_grace", "shutdown_timeout"}
"""The stop's grace period is reckoned with them."""


def test_settings_are_handed_on() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    given = {name.removeprefix("BERTH_").lower() for name in services["berth"]["environment"] if name != "HF_TOKEN"}
    assert given == Settings.model_fields.keys() - OF_THE_IMAGE - OF_THE_GPU - OF_THE_BUILD - WITH_MORE - BOUND
