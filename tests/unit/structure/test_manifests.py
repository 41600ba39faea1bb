"""Manifests for Kubernetes: pods can do what they have to, and have time to end; what refers to another is right."""

import pytest
from fastapi.routing import APIRoute

from ci_eventstore import RedisJobRepository
from ci_eventstore.web import create_router
from tests.operating.images import IMAGE
from tests.operating.manifests import Manifest, container_of, manifest, pod_of, read_manifests, variables_of
from tests.operating.promql import read_expression
from tests.operating.units import seconds

WORKLOADS = [each for each in read_manifests() if each["kind"] in {"Deployment", "ScaledJob"}]
CONTROLLERS = [workload for workload in WORKLOADS if container_of(workload)["args"][0] == "controller"]
SERVER = manifest("Deployment", "ci-eventstore-server")
OPEN_TO_ALL = {"/health", "/ready", "/metrics"}


def name_of(each: Manifest) -> str:
    return f"{each['kind']}-{each['metadata']['name']}"


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_pods_can_do_little(workload: Manifest) -> None:
    """They aren't root, write to volumes only, have no rights in the cluster, and read the URL from a secret."""
    pod, container = pod_of(workload), container_of(workload)
    user = int(IMAGE.values("USER")[-1].partition(":")[0])
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, user)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounted.values()) == set(volumes)
    assert "emptyDir" in volumes[mounted["/tmp"]]
    folder, _, key = variables_of(container)["CI_EVENTSTORE_URL_FILE"].rpartition("/")
    assert (key, "secret" in volumes[mounted[folder]]) == ("url", True)


@pytest.mark.parametrize("workload", CONTROLLERS, ids=name_of)
def test_controllers_have_time_for_their_jobs(workload: Manifest) -> None:
    """A pod is killed after its controller's grace; none is restarted because the store is away."""
    arguments = container_of(workload)["args"]
    grace = seconds(arguments[arguments.index("--grace") + 1])
    assert pod_of(workload)["terminationGracePeriodSeconds"] > grace
    assert not {"livenessProbe", "readinessProbe"} & set(container_of(workload))


@pytest.mark.parametrize("workload", CONTROLLERS, ids=name_of)
def test_controllers_see_projects_where_the_server_puts_them(workload: Manifest) -> None:
    """Both mount the same claim at the same path, in the folder that the server uses by default."""
    places = {
        each["metadata"]["name"]: {
            mount["mountPath"]
            for mount in container_of(each)["volumeMounts"]
            for volume in pod_of(each)["volumes"]
            if volume["name"] == mount["name"] and "persistentVolumeClaim" in volume
        }
        for each in (workload, SERVER)
    }
    assert set(map(tuple, places.values())) == {(f"{IMAGE.settings['XDG_DATA_HOME']}/ci-eventstore/files",)}


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_the_image_is_that_of_compose(workload: Manifest) -> None:
    """One tag everywhere, which is the project's version."""
    assert container_of(workload)["image"] == f"ci-eventstore:{IMAGE.labels['org.opencontainers.image.version']}"


def test_what_refers_to_pods_finds_them() -> None:
    """Selectors are those of the pods' labels."""
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in WORKLOADS if each["kind"] == "Deployment"]
    selectors = [
        each["spec"]["selector"].get("matchLabels", each["spec"]["selector"])
        for each in read_manifests()
        if each["kind"] in {"Deployment", "Service", "PodDisruptionBudget"}
    ]
    assert len(selectors) == 5
    assert all(selector in labels for selector in selectors)


def test_the_number_of_controllers_follows_jobs_that_wait_and_run() -> None:
    """For each of both, KEDA asks the server; together they are divided by what one controller runs at once."""
    scaled = manifest("ScaledObject", "ci-eventstore-controller")["spec"]
    controllers = manifest("Deployment", scaled["scaleTargetRef"]["name"])
    arguments = container_of(controllers)["args"]
    concurrency = arguments[arguments.index("--concurrency") + 1]
    modifiers = scaled["advanced"]["scalingModifiers"]
    assert modifiers == {"formula": "waiting + running", "target": concurrency}
    assert "replicas" not in controllers["spec"]
    found = {trigger["name"]: trigger["metadata"] for trigger in scaled["triggers"]}
    names = {name: read_expression(its["valueLocation"])[0].name for name, its in found.items()}
    assert names == {"waiting": "ci_eventstore_queue_waiting_jobs", "running": "ci_eventstore_queue_leased_jobs"}
    assert {its["url"] for its in found.values()} == {"http://ci-eventstore/metrics"}


def test_a_pod_for_each_job_counts_those_that_wait_and_run() -> None:
    """KEDA takes the sum of both and subtracts the pods that are there; a pod ends after its job and isn't repeated."""
    scaled = manifest("ScaledJob", "ci-eventstore-job")
    spec = scaled["spec"]
    of_controllers = manifest("ScaledObject", "ci-eventstore-controller")["spec"]["triggers"]
    asked = [
        [{**trigger["metadata"], "targetValue": ""} for trigger in triggers]
        for triggers in (spec["triggers"], of_controllers)
    ]
    assert asked[0] == asked[1]
    assert {trigger["metadata"]["targetValue"] for trigger in spec["triggers"]} == {"1"}
    assert spec["scalingStrategy"] == {"multipleScalersCalculation": "sum"}
    assert {"--once", "--exit-when-idle"} < set(container_of(scaled)["args"])
    assert (spec["jobTargetRef"]["backoffLimit"], pod_of(scaled)["restartPolicy"]) == (0, "Never")


def test_the_ingress_passes_on_what_users_ask() -> None:
    """Every address of the server is reached through it, but for those that need no key."""
    rules = manifest("Ingress", "ci-eventstore")["spec"]["rules"][0]["http"]["paths"]

    def is_passed_on(path: str) -> bool:
        return any(
            path == rule["path"] or (rule["pathType"] == "Prefix" and path.startswith(f"{rule['path']}/"))
            for rule in rules
        )

    routes = create_router(RedisJobRepository.from_url("redis://localhost"), has_page=True).routes
    paths = {route.path for route in routes if isinstance(route, APIRoute)} | {"/openapi.json"}
    assert {path for path in paths if not is_passed_on(path)} == OPEN_TO_ALL


def test_the_ingress_keeps_nothing_back() -> None:
    """What matters for streams is set as in nginx.conf."""
    annotations = manifest("Ingress", "ci-eventstore")["metadata"]["annotations"]
    said = {name.removeprefix("nginx.ingress.kubernetes.io/"): value for name, value in annotations.items()}
    assert (said["proxy-buffering"], said["proxy-http-version"], said["proxy-body-size"]) == ("off", "1.1", "110m")
    assert int(said["proxy-read-timeout"]) > 15
