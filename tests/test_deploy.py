"""What `deploy/` says is compared with the code that it runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.app import create_app
from service.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[1]
DEPLOY = REPOSITORY / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS = {
    path.name: [m for m in yaml.safe_load_all(path.read_text()) if m]
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
}
OBJECTS = [manifest for manifests in MANIFESTS.values() for manifest in manifests]
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
OURS = ("api", "worker-1", "worker-2")

SETTINGS = {name.upper() for name in Settings.model_fields}
# Read by the clients of database and object storage.
OTHERS = {
    "PGPASSWORD",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
}


def workloads() -> Iterator[dict[str, Any]]:
    for manifest in OBJECTS:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest


def containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    return found


def variables() -> Iterator[tuple[str, str, Any]]:
    """Where, name, value of every variable that a process of ours gets."""
    for name in OURS:
        for variable, value in COMPOSE["services"][name]["environment"].items():
            yield name, variable, value
    for manifest in OBJECTS:
        for key in ("data", "stringData"):
            for variable, value in manifest.get(key, {}).items():
                yield manifest["kind"], variable, value
    for workload in workloads():
        for container in containers(workload):
            for entry in container["env"]:
                yield container["name"], entry["name"], entry.get("value")


def test_every_variable_is_a_setting() -> None:
    named = {variable for _, variable, _ in variables()}
    assert len(named) > 12
    assert named <= SETTINGS | OTHERS


def test_every_value_is_one_that_the_setting_takes() -> None:
    checked = 0
    for _, variable, value in variables():
        if variable in SETTINGS and value is not None and "${" not in value:
            Settings(**{variable.lower(): value})
            checked += 1
    assert checked > 15


def test_worker_names_are_unique_and_stable() -> None:
    names = [COMPOSE["services"][n]["environment"].get("WORKER_NAME") for n in OURS[1:]]
    assert sorted(names) == ["worker-1", "worker-2"]
    for workload in workloads():
        roles = [e.get("value") for c in containers(workload) for e in c["env"]]
        if "worker" in roles:
            assert workload["kind"] == "StatefulSet"


def test_no_process_has_more_rights_than_it_needs() -> None:
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == "10001:10001"
    for workload in workloads():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in containers(workload):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert [m["mountPath"] for m in container["volumeMounts"]] == ["/data"]


def test_compose_refers_to_what_it_declares() -> None:
    for name, service in COMPOSE["services"].items():
        assert set(service.get("depends_on", [])) <= set(COMPOSE["services"]), name
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                # The key for /metrics is made by the operator.
                assert (DEPLOY / source).exists() or source == "./prometheus/key", name
            else:
                assert source in COMPOSE["volumes"], name
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${PRUNER_ADDRESS:-127.0.0.1}:")), name
    text = (DEPLOY / "compose.yaml").read_text()
    assert not re.search(r"(PASSWORD|SECRET)\w*: [^$\s]", text), "secrets come from .env"


def test_selectors_and_probes_fit(tmp_path: Path) -> None:
    paths = set(create_app(Settings(data_dir=tmp_path)).openapi()["paths"])
    labels = [w["spec"]["template"]["metadata"]["labels"]["app"] for w in workloads()]
    for workload in workloads():
        chosen = workload["spec"]["selector"]["matchLabels"]
        assert chosen == workload["spec"]["template"]["metadata"]["labels"]
        for container in containers(workload):
            for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["path"] in paths
    for manifest in OBJECTS:
        if manifest["kind"] == "Service":
            assert manifest["spec"]["selector"]["app"] in labels
        if manifest["kind"] == "ScaledObject":
            names = [w["metadata"]["name"] for w in workloads()]
            assert manifest["spec"]["scaleTargetRef"]["name"] in names
        assert manifest["metadata"].get("namespace", "pruner") == "pruner"


def expressions() -> Iterator[str]:
    for group in RULES["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for manifest in OBJECTS:
        if manifest["kind"] == "ScaledObject":
            yield from (t["metadata"]["query"] for t in manifest["spec"]["triggers"])


def served_metrics() -> set[str]:
    """Names in the sources, with the suffixes that Prometheus gives each kind."""
    source = (REPOSITORY / "service" / "metrics.py").read_text()
    names = set(re.findall(r'"(pruner_\w+)"', source))
    suffixes = ("", "_total", "_bucket", "_sum", "_count")
    return {name + suffix for name in names for suffix in suffixes}


def test_every_metric_that_is_asked_for_is_served() -> None:
    asked = {name for text in expressions() for name in re.findall(r"pruner_\w+", text)}
    assert len(asked) > 10
    assert asked <= served_metrics()


def test_every_alert_says_what_to_do() -> None:
    alerts = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len(alerts) > 5
    for alert in alerts:
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["action"]
        settings = re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", alert["annotations"]["action"])
        assert set(settings) <= SETTINGS


def test_panels_do_not_lie_on_each_other() -> None:
    seen: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & seen, panel["title"]
        assert at["x"] + at["w"] <= 24
        seen |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")
def test_prometheus_takes_the_rules() -> None:
    rules = str(DEPLOY / "prometheus" / "rules.yaml")
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
