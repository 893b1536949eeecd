"""The settings: each spelled once, as a field here, from which its flag, BERTH_ variable, default and help come."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PREFIX = "BERTH_"

logger = logging.getLogger("berth")

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Serve a BERT model's vectors over HTTP. Every flag is also a variable: --max-texts is BERTH_MAX_TEXTS."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        cli_kebab_case=True,
        cli_prog_name="berth serve",
        cli_hide_none_type=True,
        cli_avoid_json=True,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    model: str = Field(
        DEFAULT_MODEL, min_length=1, description="Hugging Face id, checkpoint folder, or exported artifact folder"
    )
    served_model_name: str | None = Field(None, min_length=1, description="name of the model in the API")
    device: str = Field(
        "auto", description="where the encoder runs: auto, cpu, cuda (the first GPU), cuda:1, or several as cuda:0,1"
    )
    precision: Literal["fp32", "fp16", "int8"] | None = Field(
        None, description="precision of weights and matrix products; by default fp32 on the CPU, fp16 on a GPU"
    )
    gpu_memory_limit: int | None = Field(
        None, ge=1 << 20, description="bytes that batches may take of each GPU's memory, the weights not counted"
    )
    cache_dir: Path = Field(Path("~/.cache/berth"), description="folder of the exported artifacts")
    workers: int = Field(1, ge=1, description="processes that share the port, each with a queue of its own")
    threads: int | None = Field(
        None,
        ge=1,
        description="encoder threads of a process, on GPUs of each; by default the cores it may use, divided by the "
        "workers, and 2 for a GPU",
    )
    max_batch_tokens: int | None = Field(
        None, ge=1, description="tokens the encoder runs at once; found by a short calibration where left out"
    )
    max_queue_tokens: int = Field(1 << 20, ge=1, description="tokens that may wait; past it requests get 429")
    cache_size: int = Field(0, ge=0, description="texts whose finished vectors are kept; 0 keeps none")
    max_texts: int = Field(2048, ge=1, description="texts in one request")
    max_text_chars: int = Field(1_000_000, ge=1, description="characters in one text")
    max_body_bytes: int = Field(32_000_000, ge=1, description="bytes of one request body")
    max_reply_numbers: int = Field(1 << 23, ge=1, description="numbers in the vectors of one reply of /v1/features")
    request_timeout: PositiveSeconds = Field(60, description="seconds a request may take")
    encode_pooling: Literal["cls", "mean", "max", "mean_max", "last", "weighted_mean", "pooler"] = Field(
        "mean", description="pooling of bert-as-service's route /encode"
    )
    encode_layers: Annotated[list[int], NoDecode] = Field(
        [-2], description="layers of /encode, as in --encode-layers=-2,-1"
    )
    shutdown_grace: Seconds = Field(3, description="seconds between SIGTERM and the closing of the port")
    shutdown_timeout: Seconds = Field(30, description="seconds the accepted requests then have to finish")

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: Any) -> Any:
        """Kubernetes sets BERTH_PORT=tcp://… in every pod beside a Service named berth."""
        if isinstance(value, str) and value.startswith("tcp://"):
            default = cls.model_fields["port"].default
            logger.warning("%sPORT=%s is a Kubernetes service link, not a port; using %s", PREFIX, value, default)
            return default
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        numbers = value.removeprefix("cuda:").split(",")
        if value not in {"auto", "cpu", "cuda"} and not (
            value.startswith("cuda:") and all(map(str.isdecimal, numbers)) and len(set(numbers)) == len(numbers)
        ):
            raise ValueError("must be auto, cpu, cuda, cuda:1 or, for several GPUs, cuda:0,1")
        return value

    @field_validator("encode_layers", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        items = [value] if isinstance(value, str) else value
        return [part for item in items for part in str(item).split(",")]

    @field_validator("cache_dir")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        return value.expanduser()


def read_settings(arguments: Sequence[str] | None = None, **overrides: Any) -> Settings:
    """Read flags, then variables, then defaults; `arguments` None reads no flags.

    Raises `SystemExit` with one line where a value is wrong, and prints the help where `--help` asks for it.
    """
    for name in unknown_variables(os.environ):
        logger.warning("%s is not a setting of Berth and has no effect", name)
    try:
        return Settings(_cli_parse_args=None if arguments is None else list(arguments), **overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        flag = f"--{name.replace('_', '-')}"
        raise SystemExit(f"berth: {flag} ({PREFIX}{name.upper()}): {first['msg']}, not {first['input']!r}") from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """List the BERTH_ variables that are no setting, Kubernetes' service links left out."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    links = (f"{PREFIX}PORT_", f"{PREFIX}SERVICE_")
    return sorted(
        name for name in environment if name.startswith(PREFIX) and name not in known and not name.startswith(links)
    )
