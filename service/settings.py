"""The settings: each spelled once, as a field here, from which its flag, BERTH_ variable, default and help come."""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from berth.artifact import Precision, WeightBits
from berth.batching.share import MOST_SHARE
from berth.errors import DeviceError
from berth.models import CACHE_DIR, DEFAULT_MODEL
from berth.placement import DEVICES, indices
from service.keys import Key, read_key_file, read_keys
from service.logs import Format

PREFIX = "BERTH_"
REMOVED = {
    "workers": (
        "one process uses all cores by its threads; several replicas go behind nginx: deploy/compose.replicas.yml"
    ),
}
"""Settings that are gone, and what to use instead."""
SECRET = {"api_keys"}
"""What is never repeated in a message."""
ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+")

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Serve an encoder's vectors over HTTP. Every flag is also a variable: --max-texts is BERTH_MAX_TEXTS."""

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
    precision: Precision | None = Field(
        None, description="precision of weights and matrix products; by default fp32 on the CPU, fp16 on a GPU"
    )
    int8_weights: WeightBits | None = Field(
        None,
        description="bits of int8's weights, 8 or 7; by default 8, and on x86 without VNNI 7, which are faster there "
        "and further from fp32",
    )
    gpu_memory_limit: int | None = Field(
        None, ge=1 << 20, description="bytes that batches may take of each GPU's memory, the weights not counted"
    )
    cache_dir: Path = Field(CACHE_DIR, description="folder of the exported artifacts")
    threads: int | None = Field(
        None,
        ge=1,
        description="encoder threads (on GPUs, of each GPU) for short requests, and as many again for bulk; by default "
        "the cores that the process may use, or 2 a GPU",
    )
    max_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="tokens the encoder runs at once; by default 384 on the CPU, and on a GPU what a short calibration "
        "finds at the first start",
    )
    bulk_share: float = Field(
        0.3,
        ge=0,
        le=MOST_SHARE,
        description="part of the cores' time that bulk keeps while short requests keep coming, 0 to 0.9: less is for "
        "latency, more for throughput; on the CPU under Linux only",
    )
    max_queue_tokens: int = Field(
        1 << 20, ge=1, description="tokens that may wait, of short requests and of bulk each; past it requests get 429"
    )
    cache_size: int = Field(0, ge=0, description="vectors that are kept, finished; 0 keeps none")
    max_texts: int = Field(2048, ge=1, description="texts in one request")
    max_text_chars: int = Field(1_000_000, ge=1, description="characters in one text")
    max_body_bytes: int = Field(32_000_000, ge=1, description="bytes of one request body")
    max_reply_numbers: int = Field(
        1 << 23, ge=1, description="numbers in the vectors of one request, all windows' counted"
    )
    max_request_tokens: int | None = Field(
        None, ge=1, description="tokens in the texts of one request; by default as many as may wait"
    )
    max_header_bytes: int = Field(1 << 16, ge=1024, description="bytes of a request's first line and headers")
    request_timeout: PositiveSeconds = Field(60, description="seconds a request may take")
    header_timeout: PositiveSeconds = Field(10, description="seconds in which a request's headers must have arrived")
    idle_timeout: PositiveSeconds = Field(
        75, description="seconds a connection may have no request, or an answer that is not taken"
    )
    api_keys: Annotated[tuple[Key, ...], NoDecode] = Field(
        (),
        description="keys, one of which each request must show, as in `KEY,KEY` or `alice: KEY,bob: KEY`; none by "
        "default. A flag is seen by all users of the machine, a variable or a file is not",
    )
    api_keys_file: Path | None = Field(None, description="file of further keys, `KEY` or `alice: KEY` a line")
    key_tokens_per_minute: int | None = Field(None, ge=1, description="tokens a minute that a key may have encoded")
    metrics_access: Literal["key", "open"] = Field(
        "key", description="whether /metrics needs a key where there are any"
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port for health and /metrics, without keys; the other has no /metrics then"
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        [], description="web pages' origins whose scripts may call, as in https://a.example,https://b.example, or *"
    )
    log_format: Format = Field("text", description="how a line of the log is written")
    tracing: Literal["off", "otlp"] = Field("off", description="send OpenTelemetry spans where OTEL_ variables say")
    encode_pooling: Literal["cls", "mean", "max", "mean_max", "last", "weighted_mean", "mean_sqrt_len", "pooler"] = (
        Field("mean", description="pooling of bert-as-service's route /encode")
    )
    encode_layers: Annotated[list[int], NoDecode] = Field(
        [-2], description="layers of /encode, as in --encode-layers=-2,-1"
    )
    shutdown_grace: Seconds = Field(3, description="seconds between SIGTERM and the closing of the port")
    shutdown_timeout: Seconds = Field(30, description="seconds the accepted requests then have to finish")

    @field_validator("port", "metrics_port", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: Any, info: ValidationInfo) -> Any:
        """Kubernetes sets BERTH_PORT=tcp://… in every pod beside a Service named berth."""
        return cls.model_fields[str(info.field_name)].default if _is_service_link(value) else value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        try:
            indices(value)
        except DeviceError:
            raise ValueError(DEVICES) from None
        return value

    @field_validator("int8_weights", mode="before")
    @classmethod
    def _read_number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("encode_layers", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        items = [value] if isinstance(value, str) else value
        return [part for item in items for part in str(item).split(",")]

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: list[str]) -> list[str]:
        if not all(map(ORIGIN.fullmatch, value)):
            raise ValueError("an origin is * or a scheme and a host, as in https://a.example")
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _read_keys(cls, value: Any) -> Any:
        """Read keys as they are written down; those that were read already stay as they are."""
        items = [value] if isinstance(value, str) else value
        if not all(isinstance(item, str) for item in items):
            return items
        return read_keys([part for item in items for part in item.split(",")])

    @field_validator("cache_dir")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        try:
            return value.expanduser()
        except RuntimeError:
            raise ValueError("must be in a home that there is") from None


def read_settings(arguments: Sequence[str] | None = None, **overrides: Any) -> Settings:
    """Read flags, then variables, then defaults, and the keys' file; `arguments` None reads no flags.

    Raises `SystemExit` with one line where a value is wrong, and prints the help where `--help` asks for it.
    """
    for name, instead in REMOVED.items():
        flag = f"--{name.replace('_', '-')}"
        flags = [argument.partition("=")[0] for argument in arguments or ()]
        if flag in flags or os.environ.get(f"{PREFIX}{name.upper()}"):
            raise _mistake(name, f"is gone: {instead}")
    try:
        settings = Settings(_cli_parse_args=None if arguments is None else list(arguments), **overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name, message = str(first["loc"][0]), str(first["msg"]).removeprefix("Value error, ")
        raise _mistake(name, message if name in SECRET else f"{message}, not {first['input']!r}") from None
    if settings.api_keys_file is not None:
        try:
            further = read_key_file(settings.api_keys_file, settings.api_keys)
        except ValueError as error:
            raise _mistake("api_keys_file", str(error)) from None
        settings = settings.model_copy(update={"api_keys": settings.api_keys + further})
    if settings.key_tokens_per_minute is not None and not settings.api_keys:
        raise _mistake("key_tokens_per_minute", "there are no keys; set --api-keys or --api-keys-file")
    return settings


def warnings_of(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """List what looks like a mistake and is none that stops a start."""
    lines = [f"{name} is not a setting of Berth and has no effect" for name in unknown_variables(environment)]
    if _is_service_link(link := environment.get(f"{PREFIX}PORT")):
        lines.append(f"{PREFIX}PORT={link} is a Kubernetes service link, not a port; using {settings.port}")
    if (file := settings.api_keys_file) is not None and file.stat().st_mode & stat.S_IROTH:
        lines.append(f"{file} can be read by every user of this machine; it should be the service's alone")
    if short := [key.label for key in settings.api_keys if key.short]:
        lines.append(f"short API keys can be guessed: {', '.join(short)}")
    return lines


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """List the BERTH_ variables that are no setting, Kubernetes' service links left out."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    links = (f"{PREFIX}PORT_", f"{PREFIX}SERVICE_")
    return sorted(
        name for name in environment if name.startswith(PREFIX) and name not in known and not name.startswith(links)
    )


def _is_service_link(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("tcp://")


def _mistake(name: str, message: str) -> SystemExit:
    return SystemExit(f"berth: --{name.replace('_', '-')} ({PREFIX}{name.upper()}): {message}")
