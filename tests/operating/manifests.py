"""Reads Kubernetes' manifests."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "examples" / "kubernetes"
Manifest = Mapping[str, Any]


@cache
def read_manifests() -> Sequence[Manifest]:
    """Return all objects of all files."""
    return [found for path in sorted(MANIFESTS.glob("*.yaml")) for found in yaml.safe_load_all(path.read_text())]


def manifest(kind: str, name: str) -> Manifest:
    """Return the object of a kind and name; ValueError unless there is exactly one."""
    [found] = [each for each in read_manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod_of(workload: Manifest) -> Manifest:
    """Return what a pod of a workload is, be it a Deployment or KEDA's ScaledJob."""
    spec = workload["spec"]
    pod: Manifest = spec.get("template", spec.get("jobTargetRef", {}).get("template"))["spec"]
    return pod


def container_of(workload: Manifest) -> Manifest:
    """Return the one container of a workload's pods."""
    [found] = pod_of(workload)["containers"]
    container: Manifest = found
    return container


def variables_of(container: Manifest) -> dict[str, str]:
    """Return the environment that a container is given."""
    return {variable["name"]: variable["value"] for variable in container.get("env", ())}
