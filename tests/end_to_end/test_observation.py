"""What dashboard and alerts ask for is there: on the service's own page, and in a real Prometheus that reads it."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.server import free_port

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service, Start

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "observation"
FLAGS = ("--threads", "1", "--max-queue-tokens", "5000")
BY_PROMETHEUS = {"up": {"job", "instance"}}
"""What Prometheus says by itself."""
TARGET_LABELS = {"job", "instance"}
NUMBERS = count()

DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "berth.json").read_text(encoding="utf-8"))
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


@dataclass(frozen=True, slots=True)
class Target:
    """A query of a panel, as Grafana would send it, and what it writes beside each line."""

    panel: str
    query: str
    legend: str


TARGETS = [
    Target(
        f"{panel['title']} {target['refId']}",
        target["expr"].replace("$__rate_interval", "5s").replace("$instance", ".*"),
        target["legendFormat"],
    )
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


@pytest.fixture
def service(start: "Start", minilm: Path) -> "Service":
    """Give a service whose queue is soon full."""
    return start(minilm, *FLAGS)


def send(service: "Service") -> None:
    """Send what is answered, what is wrong, what comes too late, and more than there is room for."""

    def bulk(_: int) -> int:
        texts = [f"{next(NUMBERS)} " + "tide " * 250 for _ in range(16)]
        with service.client() as http:
            return http.post("/v1/embeddings", json={"input": texts}).status_code

    with service.client() as http:
        assert http.post("/v1/embeddings", json={"input": ["a ship", "a boat"]}).status_code == 200
        assert http.post("/v1/embeddings", json={"input": []}).status_code == 400
        late = http.post("/v1/embeddings", json={"input": "late"}, headers={"X-Request-Timeout": "1e-9"})
        assert late.status_code == 504
    statuses: set[int] = set()
    with ThreadPoolExecutor(8) as pool:

        def both_were_seen() -> bool:
            statuses.update(pool.map(bulk, range(8)))
            return statuses >= {200, 429}

        service.until(both_were_seen)
    assert statuses == {200, 429}


def selectors(query: str) -> list[promql.VectorSelector]:
    """List what a query reads."""
    found: list[promql.VectorSelector] = []

    def note(expression: promql.Expr) -> None:
        if isinstance(expression, promql.VectorSelector):
            found.append(expression)
        elif isinstance(expression, promql.MatrixSelector):
            found.append(expression.vector_selector)

    promql.walk(promql.parse(query), note)
    return found


def groupings(query: str) -> set[str]:
    """List the labels by which a query sums up."""
    found: set[str] = set()

    def note(expression: promql.Expr) -> None:
        if isinstance(expression, promql.AggregateExpr) and expression.modifier is not None:
            found.update(expression.modifier.labels)

    promql.walk(promql.parse(query), note)
    return found


def test_queries_name_what_the_service_shows(service: "Service") -> None:
    """Each metric, each label and, where a query asks for one value, that value."""
    send(service)
    with service.client() as http:
        families = list(text_string_to_metric_families(http.get("/metrics").text))
    values: dict[str, dict[str, set[str]]] = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = values.setdefault(sample.name, {label: set() for label in TARGET_LABELS})
        for label, value in sample.labels.items():
            labels.setdefault(label, set()).add(value)
    values |= {name: {label: set() for label in labels} for name, labels in BY_PROMETHEUS.items()}
    for query in [target.query for target in TARGETS] + [rule["expr"] for rule in RULES]:
        read = selectors(query)
        assert read, query
        for selector in read:
            assert selector.name in values, query
            shown = values[selector.name]
            for matcher in selector.matchers.matchers:
                assert matcher.name in shown, query
                if matcher.op == promql.MatchOp.Equal and matcher.name not in TARGET_LABELS:
                    assert matcher.value in shown[matcher.name], query
        assert groupings(query) <= set().union(*(values[str(selector.name)] for selector in read)), query


@pytest.mark.parametrize("document", ["docs/metrics.md", "docs/operations.md"])
def test_documents_name_what_the_service_shows(service: "Service", document: str) -> None:
    send(service)
    with service.client() as http:
        page = http.get("/metrics").text
    named = set(re.findall(r"\b(?:berth|process)_[a-z_]+", (ROOT / document).read_text(encoding="utf-8")))
    shown = set(re.findall(r"^(\w+)", page, re.MULTILINE)) | set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    assert len(named) > 10
    assert {name for name in named if not name.endswith("_")} <= shown


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A real one, and what it is asked."""

    process: subprocess.Popen[bytes]
    http: httpx.Client

    def query(self, query: str) -> list[dict[str, Any]]:
        """Evaluate a query now; gives its series, of which a scalar has none."""
        answer = self.http.get("/api/v1/query", params={"query": query})
        assert answer.status_code == 200, f"{query}: {answer.text}"
        series: list[dict[str, Any]] = answer.json()["data"]["result"]
        return series

    def has_scraped(self) -> bool:
        """Tell whether it is ready and has read the service's page."""
        try:
            ready = self.http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False
        return ready and self.query('up{job="berth"} == 1') != []

    def rules(self) -> dict[str, dict[str, Any]]:
        """Give each alert's state by its name."""
        groups = self.http.get("/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


@pytest.fixture
def prometheus(service: "Service", tmp_path: Path) -> Iterator[Prometheus]:
    """Run Prometheus as deploy/observation says, but every second, on the service."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed; Debian's package is named so")
    config = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    by_dns = "dns_sd_configs:\n      - { names: [berth], type: A, port: 8080, refresh_interval: 10s }"
    ours = f'static_configs:\n      - targets: ["127.0.0.1:{service.port}"]'  # there is no such name here
    for name, value in ((by_dns, ours), (": 15s", ": 1s")):
        assert name in config
        config = config.replace(name, value)
    (tmp_path / "prometheus.yml").write_text(config, encoding="utf-8")
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    port = free_port()
    command = [
        program,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
            prometheus = Prometheus(process, http)
            service.until(prometheus.has_scraped)
            yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def test_prometheus_has_data_for_every_panel_and_judges_every_alert(service: "Service", prometheus: Prometheus) -> None:
    missing = {target.panel: target for target in TARGETS}

    def all_have_data() -> bool:
        send(service)
        for panel, target in list(missing.items()):
            series = prometheus.query(target.query)
            if series and all(one["value"][1] != "NaN" for one in series):
                wanted = set(re.findall(r"\{\{(\w+)\}\}", target.legend))
                assert all(wanted <= one["metric"].keys() for one in series), panel
                del missing[panel]
        return not missing

    try:
        service.until(all_have_data, 120)
    except AssertionError as error:
        raise AssertionError(f"no data for {sorted(missing)}") from error
    service.until(lambda: all(rule["health"] == "ok" for rule in prometheus.rules().values()))
    states = {name: rule["state"] for name, rule in prometheus.rules().items()}
    assert states.keys() == {rule["alert"] for rule in RULES}
    assert states["BerthDown"] == states["BerthNotReady"] == states["BerthEncoderErrors"] == "inactive"
    for alert in ("BerthOverloaded", "BerthDeadlines"):

        def is_pending(alert: str = alert) -> bool:
            send(service)
            return bool(prometheus.rules()[alert]["state"] == "pending")

        service.until(is_pending)


def test_prometheus_sees_the_service_go(service: "Service", prometheus: Prometheus) -> None:
    service.process.kill()
    service.process.wait()
    end = time.monotonic() + 60
    while prometheus.rules()["BerthDown"]["state"] != "pending":
        assert time.monotonic() < end
        time.sleep(0.2)
