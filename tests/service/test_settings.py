"""Flags, then variables, then defaults; what is wrong is one clear line."""

import os
from pathlib import Path

import pytest

from service.settings import Settings, read_settings, unknown_variables, warnings_of

DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8080,
    "model": "sentence-transformers/all-MiniLM-L6-v2",
    "served_model_name": None,
    "device": "auto",
    "precision": None,
    "int8_weights": None,
    "threads": None,
    "max_texts": 2048,
    "max_body_bytes": 32_000_000,
    "request_timeout": 60,
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BERTH_")]:
        monkeypatch.delenv(name)


def test_defaults() -> None:
    assert DEFAULTS.items() <= read_settings([]).model_dump().items()


def test_cache_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/pilot")
    assert read_settings([]).cache_dir == Path("/home/pilot/.cache/berth")
    assert read_settings(["--cache-dir", "~/models"]).cache_dir == Path("/home/pilot/models")


def test_variable_goes_before_default_and_flag_before_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_MAX_TEXTS", "7")
    monkeypatch.setenv("BERTH_HOST", "0.0.0.0")
    settings = read_settings(["--max-texts", "9"])
    assert (settings.max_texts, settings.host, settings.port) == (9, "0.0.0.0", 8080)
    assert read_settings([]).max_texts == 7
    assert read_settings(None).max_texts == 7


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--port", "0"], "port", 0),
        (["--port=9000"], "port", 9000),
        (["--model", "/models/tug"], "model", "/models/tug"),
        (["--served-model-name", "tug"], "served_model_name", "tug"),
        (["--threads", "3"], "threads", 3),
        (["--max-batch-tokens", "512"], "max_batch_tokens", 512),
        (["--max-queue-tokens", "9"], "max_queue_tokens", 9),
        (["--bulk-share", "0"], "bulk_share", 0),
        (["--bulk-share", "0.9"], "bulk_share", 0.9),
        (["--max-text-chars", "9"], "max_text_chars", 9),
        (["--max-body-bytes", "9"], "max_body_bytes", 9),
        (["--request-timeout", "0.5"], "request_timeout", 0.5),
        (["--shutdown-grace", "0"], "shutdown_grace", 0),
        (["--shutdown-timeout", "1.5"], "shutdown_timeout", 1.5),
        (["--device", "cpu"], "device", "cpu"),
        (["--device", "cuda"], "device", "cuda"),
        (["--device", "cuda:0,3"], "device", "cuda:0,3"),
        (["--precision", "fp16"], "precision", "fp16"),
        (["--int8-weights", "7"], "int8_weights", 7),
        (["--int8-weights=8"], "int8_weights", 8),
        (["--gpu-memory-limit", "2000000000"], "gpu_memory_limit", 2_000_000_000),
        (["--max-request-tokens", "9"], "max_request_tokens", 9),
        (["--max-header-bytes", "2048"], "max_header_bytes", 2048),
        (["--header-timeout", "0.5"], "header_timeout", 0.5),
        (["--idle-timeout", "1.5"], "idle_timeout", 1.5),
        (["--metrics-access", "open"], "metrics_access", "open"),
        (["--metrics-port", "0"], "metrics_port", 0),
        (["--cors-origins", "https://a.example,http://b:1"], "cors_origins", ["https://a.example", "http://b:1"]),
        (["--cors-origins", "*"], "cors_origins", ["*"]),
        (["--log-format", "json"], "log_format", "json"),
        (["--tracing", "otlp"], "tracing", "otlp"),
    ],
    ids=str,
)
def test_flags(flags: list[str], name: str, value: object) -> None:
    assert getattr(read_settings(flags), name) == value


def test_every_flag_is_a_variable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"port": "1", "threads": "2", "max_texts": "3", "request_timeout": "4", "model": "5", "cache_dir": "/6"}
    for name, value in values.items():
        monkeypatch.setenv(f"BERTH_{name.upper()}", value)
    settings = read_settings([])
    assert {name: str(getattr(settings, name)).removesuffix(".0") for name in values} == values


def test_kubernetes_service_link_is_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_PORT", "tcp://10.0.0.1:8080")
    settings = read_settings([])
    assert settings.port == 8080
    assert warnings_of(settings, os.environ) == [
        "BERTH_PORT=tcp://10.0.0.1:8080 is a Kubernetes service link, not a port; using 8080"
    ]
    assert read_settings(["--port", "9000"]).port == 9000


def test_unknown_variable_is_named() -> None:
    lines = warnings_of(read_settings([]), {"BERTH_MAX_TEXT": "7", "BERTH_API_KEY": "sesame"})
    assert lines == [
        "BERTH_API_KEY is not a setting of Berth and has no effect",
        "BERTH_MAX_TEXT is not a setting of Berth and has no effect",
    ]


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        (["BERTH_HOST", "BERTH_MAX_TEXTS", "PATH"], []),
        (["BERTH_Z", "BERTH_A", "BERTHA"], ["BERTH_A", "BERTH_Z"]),
        (["BERTH_PORT_80_TCP", "BERTH_SERVICE_HOST", "BERTH_SERVICE_PORT_HTTP"], []),
    ],
)
def test_unknown_variables(names: list[str], unknown: list[str]) -> None:
    assert unknown_variables(dict.fromkeys(names, "")) == unknown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "-1"),
        ("port", "65536"),
        ("port", "http"),
        ("threads", "0"),
        ("threads", "many"),
        ("max_texts", "0"),
        ("max_texts", "1.5"),
        ("max_batch_tokens", "0"),
        ("max_queue_tokens", "-3"),
        ("bulk_share", "-0.1"),
        ("bulk_share", "0.91"),
        ("bulk_share", "nan"),
        ("max_text_chars", "0"),
        ("max_body_bytes", "0"),
        ("request_timeout", "0"),
        ("request_timeout", "inf"),
        ("request_timeout", "nan"),
        ("shutdown_grace", "-1"),
        ("shutdown_timeout", "soon"),
        ("device", "abacus"),
        ("device", "cuda:"),
        ("device", "cuda:first"),
        ("device", "cuda:0,0"),
        ("device", "cuda:-1"),
        ("gpu_memory_limit", "8"),
        ("max_request_tokens", "0"),
        ("max_header_bytes", "1000"),
        ("header_timeout", "0"),
        ("idle_timeout", "inf"),
        ("metrics_access", "closed"),
        ("metrics_port", "65536"),
        ("cors_origins", "https://a.example/"),
        ("cors_origins", "a.example"),
        ("log_format", "xml"),
        ("tracing", "on"),
        ("precision", "fp64"),
        ("int8_weights", "6"),
        ("int8_weights", "int7"),
        ("cache_dir", "~nobody-of-that-name/models"),
    ],
)
@pytest.mark.parametrize("way", ["flag", "variable"])
def test_bad_value_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], way: str, name: str, value: str
) -> None:
    flag = f"--{name.replace('_', '-')}"
    if way == "variable":
        monkeypatch.setenv(f"BERTH_{name.upper()}", value)
    with pytest.raises(SystemExit) as stop:
        read_settings([f"{flag}={value}"] if way == "flag" else [])
    message = str(stop.value)
    if isinstance(stop.value.code, int):  # the parser has printed it itself
        assert stop.value.code != 0
        message = capsys.readouterr().err.strip().splitlines()[-1]
    assert flag in message
    assert value in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [(["--workers", "2"], None), (["--workers=2"], None), (["--port", "0", "--workers"], None), ([], "2")],
    ids=str,
)
def test_setting_that_is_gone_is_one_line_that_says_what_to_use(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str | None
) -> None:
    if variable is not None:
        monkeypatch.setenv("BERTH_WORKERS", variable)
    with pytest.raises(SystemExit) as stop:
        read_settings(arguments)
    message = str(stop.value)
    assert message.startswith("berth: --workers (BERTH_WORKERS): is gone: ")
    assert "threads" in message
    assert "nginx" in message
    assert "\n" not in message


def test_setting_that_is_gone_may_be_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_WORKERS", "")
    assert read_settings([]).port == 8080


@pytest.mark.parametrize("arguments", [["--invented", "1"], ["--port"], ["stray"]], ids=str)
def test_bad_command_line_stops_with_the_reason(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        read_settings(arguments)
    assert stop.value.code not in {0, None}
    assert arguments[0].lstrip("-") in capsys.readouterr().err + str(stop.value.code)


def test_help_lists_each_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        read_settings(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description
        assert field.description in text
    assert "2048" in text
    assert "BERTH_" in text


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_settings([]).port = 1  # type: ignore[misc]


def test_blank_variables_are_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files and charts write them."""
    for name in ("PORT", "THREADS", "SERVED_MODEL_NAME", "ENCODE_LAYERS"):
        monkeypatch.setenv(f"BERTH_{name}", "")
    settings = read_settings([])
    assert (settings.port, settings.threads, settings.served_model_name) == (8080, None, None)
    assert settings.encode_layers == [-2]
