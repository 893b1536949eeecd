"""The manifests, as kustomize puts them together: valid by Kubernetes' own schemas, and true to the service."""

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from berth import __version__
from service.api.routes.service import health
from service.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ["cpu", "cuda"]
VERSIONS = ["1.27", "1.31", "1.37"]
"""The oldest Kubernetes that knows every field, one between, and the newest that the schemas are there for."""
JOIN_SECONDS = 5
LAST_SECONDS = 3
"""What a shutdown takes besides its two settings: the encoder's last batch, and the last connections."""

Manifest = dict[str, Any]


def build(folder: Path) -> list[Manifest]:
    """Have kustomize put an overlay together, as `kubectl apply --kustomize` does."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which has kustomize in it, is not installed")
    result = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    """Give an overlay's manifests by their kind."""
    built = build(FOLDER / "overlays" / request.param)
    by_kind = {manifest["kind"]: manifest for manifest in built}
    assert len(by_kind) == len(built)
    return by_kind


@pytest.fixture
def pod(manifests: dict[str, Manifest]) -> Manifest:
    """Give the pods' specification."""
    spec: Manifest = manifests["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    """Give the pods' one container."""
    [container] = pod["containers"]
    only: Manifest = container
    return only


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_is_one_of_kubernetes(manifests: dict[str, Manifest], version: str) -> None:
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= manifests.keys()
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_check_sees_a_misspelled_field_and_a_wrong_type(manifests: dict[str, Manifest], version: str) -> None:
    for place, value in (("readOnlyRootFileSystem", True), ("privileged", "no")):
        manifest = copy.deepcopy(manifests["Deployment"])
        manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"][place] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(manifest, version, strict=True)


def test_plain_manifests_are_all_of_the_base() -> None:
    """They can be applied without kustomize too, and none is forgotten."""
    listed = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())["resources"]
    files = {path.name for path in (FOLDER / "base").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == files
    for name in files:
        kubernetes_validate.validate(yaml.safe_load((FOLDER / "base" / name).read_text()), VERSIONS[-1], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_berth_s_version(overlay: str) -> None:
    [image] = yaml.safe_load((FOLDER / "overlays" / overlay / "kustomization.yaml").read_text())["images"]
    assert image["newTag"] == __version__


def test_all_select_the_same_pods(manifests: dict[str, Manifest]) -> None:
    deployment = manifests["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert labels
    selectors = [
        deployment["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(
            spread["labelSelector"]["matchLabels"]
            for spread in deployment["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    assert all(selector == labels for selector in selectors)


def test_ports_are_the_image_s(manifests: dict[str, Manifest], container: Manifest) -> None:
    [port] = container["ports"]
    assert f"EXPOSE {port['containerPort']}" in (ROOT / "Dockerfile").read_text()
    names = [
        manifests["Service"]["spec"]["ports"][0]["targetPort"],
        manifests["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"],
        *(container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")),
    ]
    assert set(names) == {port["name"]}
    annotations = manifests["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_probes_ask_routes_that_there_are(container: Manifest) -> None:
    paths = {getattr(route, "path", None) for route in health.routes}
    asked = {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")}
    assert asked == {
        "startupProbe": "/health/live",
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",
    }
    assert set(asked.values()) <= paths


def test_variables_are_settings_and_a_shutdown_has_its_time(pod: Manifest, container: Manifest) -> None:
    values = {variable["name"].removeprefix("BERTH_").lower(): variable["value"] for variable in container["env"]}
    assert values.keys() <= Settings.model_fields.keys()
    settings = Settings(**values)
    needed = settings.shutdown_grace + settings.shutdown_timeout + JOIN_SECONDS + LAST_SECONDS
    assert pod["terminationGracePeriodSeconds"] >= needed
    readiness = container["readinessProbe"]
    noticed = readiness["periodSeconds"] * readiness["failureThreshold"] + readiness["timeoutSeconds"]
    assert settings.shutdown_grace >= noticed, "the port stays open until Kubernetes has seen the 503"
    assert "lifecycle" not in container


def test_pods_may_do_nothing_but_serve(pod: Manifest, container: Manifest) -> None:
    [user] = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    context = pod["securityContext"]
    assert (str(context["runAsUser"]), str(context["runAsGroup"]), context["runAsNonRoot"]) == (*user, True)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False


def test_what_is_written_lies_in_a_volume(pod: Manifest, container: Manifest) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    dockerfile = (ROOT / "Dockerfile").read_text()
    [cache] = re.findall(r"BERTH_CACHE_DIR=(\S+)", dockerfile)
    assert any(Path(cache).is_relative_to(path) for path in mounts)
    assert "/tmp" in mounts, "where libraries write temporary files"
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}


def test_limits_are_set(container: Manifest) -> None:
    resources = container["resources"]
    assert resources["requests"].keys() >= {"cpu", "memory"}
    assert resources["limits"].keys() >= {"cpu", "memory"}, "threads are counted from the processor's limit"


def test_replicas_have_one_master(manifests: dict[str, Manifest]) -> None:
    """A number in the Deployment and an autoscaler would set it back and forth."""
    deployment = manifests["Deployment"]
    scaler = manifests.get("HorizontalPodAutoscaler")
    assert ("replicas" in deployment["spec"]) is (scaler is None)
    replicas = deployment["spec"]["replicas"] if scaler is None else scaler["spec"]["minReplicas"]
    assert replicas >= 2, "one is not enough to be restarted"
    if scaler is not None:
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["apiVersion"], target["kind"]) == (deployment["apiVersion"], deployment["kind"])
        assert target["name"] == deployment["metadata"]["name"]


def test_cuda_asks_for_a_gpu() -> None:
    [deployment] = [one for one in build(FOLDER / "overlays" / "cuda") if one["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    compose = yaml.safe_load((ROOT / "deploy" / "compose.cuda.yml").read_text())
    assert container["image"].partition(":")[0] == compose["services"]["berth"]["image"]
