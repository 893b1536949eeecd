"""Prometheus' rules and Grafana's dashboard, as far as they can be judged without a service to look at."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "observation"
ALERTS_TEST = Path(__file__).with_name("alerts_test.yml")
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana" / "dashboards" / "berth.json").read_text())


@pytest.fixture
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian has it in prometheus")
    return program


def anchors(document: Path) -> set[str]:
    """List the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", FOLDER / "prometheus.yml"],
        ["check", "rules", "--lint-fatal", FOLDER / "alerts.yml"],
        ["test", "rules", ALERTS_TEST],
    ],
    ids=["config", "rules", "tests"],
)
def test_promtool_agrees(promtool: str, arguments: list[Any]) -> None:
    result = subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    fired = {
        test["alertname"]
        for case in yaml.safe_load(ALERTS_TEST.read_text())["tests"]
        for test in case["alert_rule_test"]
        if test["exp_alerts"]
    }
    assert {rule["alert"] for rule in RULES} == fired


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_its_page_to_read(rule: dict[str, Any]) -> None:
    document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors(ROOT / document)
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_dashboard_has_no_field_that_grafana_does_not_know() -> None:
    """By Grafana's own schema as its SDK has it: what it does not know is lost on the way through."""
    register_default_plugins()
    read_and_written = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))
    assert lost(DASHBOARD, read_and_written, "") == []


def lost(before: Any, after: Any, place: str) -> list[str]:
    """List what is in one JSON value and not in another."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [line for key in before for line in lost(before[key], after.get(key), f"{place}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for number, pair in pairs for line in lost(*pair, f"{place}[{number}]")]
    return [] if before == after else [place]


def test_what_any_process_shows_is_asked_of_berth_alone() -> None:
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    queries += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    queries += [rule["expr"] for rule in RULES]
    matchers = re.findall(r"\bprocess_\w+(\{[^}]*\})?", " ".join(queries))
    assert matchers
    assert all('job="berth"' in each for each in matchers)


def test_panels_lie_side_by_side() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        covered = {
            (place["x"] + column, place["y"] + line) for column in range(place["w"]) for line in range(place["h"])
        }
        assert not covered & cells, panel["title"]
        assert max(column for column, _ in covered) < 24
        cells |= covered
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_compose_mounts_what_is_there_and_pins_its_images() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    observers = {name: service for name, service in services.items() if "observation" in service.get("profiles", [])}
    assert observers.keys() == {"prometheus", "grafana"}
    for service in observers.values():
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "nobody else is let in without a word"
    mounts = {
        ROOT / source: target
        for service in observers.values()
        for source, target, *_ in (volume.split(":") for volume in service["volumes"])
        if source.startswith("./")
    }
    assert all(source.exists() for source in mounts)
    provider = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/berth.yml").read_text())["providers"][0]
    assert mounts[FOLDER / "grafana/dashboards"] == provider["options"]["path"]
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    [job] = config["scrape_configs"]
    assert "static_configs" not in job
    [dns] = job["dns_sd_configs"]
    assert (dns["names"], dns["type"], dns["port"]) == (["berth"], "A", 8080), "every replica's address is a target"
    assert services["berth"]["ports"][0].endswith(":8080")
