"""What docker-compose.yml, units and manifests tell programs to do is done here, on one store with its users."""

import contextlib
import io
import json
import socket
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from tests.acceptance.command_line import Running
from tests.deployments.members import spare_port
from tests.operating.images import ROOT, read_compose
from tests.operating.machine import Machine, Service, ours, theirs
from tests.operating.manifests import container_of, manifest, variables_of
from tests.operating.promql import read_expression
from tests.operating.units import UNITS, Unit, read_unit
from tests.servers import wait_until

PASSWORDS = {f"{who}_PASSWORD": f"secret-of-{who.lower()}" for who in ("ADMIN", "SERVER", "CONTROLLER")}
#: What the image runs in, so that nobody but this machine reaches a server.
EVERYWHERE = {"0.0.0.0": "127.0.0.1"}
PATIENCE_SECONDS = 60.0
#: What doctor may find on a machine that has much else to do.
BY_CHANCE = {"latency", "clocks", "channels"}

pytestmark = [pytest.mark.slow, pytest.mark.needs("redis7"), pytest.mark.timeout(300)]


@dataclass
class Place:
    """The store of docker-compose.yml, with what its services are told."""

    machine: Machine
    compose: Mapping[str, Any]
    store_port: int
    web_port: int

    def service(self, name: str) -> Service:
        """Return what a service of this project's image is told."""
        said = self.compose["services"][name]
        check = said.get("healthcheck", {}).get("test", ())
        return ours(said["command"], said["environment"], check)

    @property
    def url(self) -> str:
        """Where a server of this test answers."""
        return f"http://127.0.0.1:{self.web_port}"

    def secret(self, name: str) -> Path:
        """Return a file with the URL of one of the store's users."""
        path = self.machine.folder / f"{name}.url"
        path.write_text(self.machine.here(self.service(name).environment["CI_EVENTSTORE_URL"]))
        path.chmod(0o600)
        return path

    def wait_for(self, path: str, running: Running) -> None:
        """Ask a server as a probe does, until it answers with 200."""

        def is_there() -> bool:
            assert running.process.poll() is None, running.end()
            try:
                return httpx.get(self.url + path).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_there, path, PATIENCE_SECONDS)

    @cached_property
    def key(self) -> str:
        """An API key of Ada, who is made a user as the top of docker-compose.yml says."""
        environment = self.service("server").environment
        made = self.machine.call(
            ["ci-eventstore", "user", "create", "Ada", "ada@example.com", "--id", "ada"], environment
        )
        assert made.code == 0, made.err
        made = self.machine.call(["ci-eventstore", "key", "create", "ada"], environment)
        assert made.code == 0, made.err
        return made.text.strip()

    def read_metric(self, selector: str) -> float | None:
        """Return the one number in a server's metrics that a selector finds, as KEDA does; None if there is none."""
        name, _, labels = selector.partition("{")
        wanted = {part.partition("=")[0]: part.partition("=")[2].strip('"') for part in labels.rstrip("}").split(",")}
        families = text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        found = [sample.value for sample in samples if sample.name == name and sample.labels == wanted]
        assert len(found) <= 1
        return found[0] if found else None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The store with its users, healthy; at the end its jobs agree with their logs, and nobody was refused anything."""
    store_port = spare_port()
    machine = Machine(tmp_path_factory.mktemp("deployed") / "machine", {"valkey:6379": f"127.0.0.1:{store_port}"})
    compose = read_compose(PASSWORDS)
    users = machine.folder / "users.acl"
    users.write_text(compose["configs"]["users"]["content"])
    machine.replaced |= {**EVERYWHERE, "/etc/valkey/users.acl": str(users)}
    found = Place(machine, compose, store_port, 0)
    try:
        valkey = theirs(compose["services"]["valkey"], machine.folder / "data", store_port)
        running = machine.start(valkey.command, valkey.environment)
        machine.wait_until_healthy(running, valkey.health_check, valkey.environment)
        yield found
        verified = machine.call(["ci-eventstore", "verify"], found.service("server").environment)
        assert verified.code == 0, verified
        with Redis(port=store_port, username="admin", password="secret-of-admin", decode_responses=True) as admin:
            assert [each["object"] for each in admin.acl_log() if each["object"] != "client|setinfo"] == []
        assert machine.stop(running).code == 0
    finally:
        machine.remove()


@pytest.fixture
def elsewhere(place: Place) -> Iterator[Callable[..., None]]:
    """Replaces what is elsewhere for one test, which gets a port of its own for its server."""
    before = dict(place.machine.replaced)
    place.web_port = spare_port()
    place.machine.replaced |= {"8000": str(place.web_port)}

    def replace(changes: Mapping[str, str]) -> None:
        place.machine.replaced |= changes

    yield replace
    place.machine.replaced = before


def submit(place: Place, script: str) -> str:
    """Submit a job with a project over HTTP, and return its id."""
    project = io.BytesIO()
    with zipfile.ZipFile(project, "w") as archive:
        archive.writestr("build.sh", script)
    answer = httpx.post(
        f"{place.url}/jobs",
        headers={"Authorization": f"Bearer {place.key}"},
        data={"command": ["sh", "build.sh"]},
        files={"project": ("project.zip", project.getvalue())},
    )
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


def log_of(place: Place, job_id: str) -> str:
    """Follow a job to its end, and return its log."""
    headers, text = {"Authorization": f"Bearer {place.key}"}, ""
    url = f"{place.url}/jobs/{job_id}/stream?from_beginning=true"
    with httpx.stream("GET", url, headers=headers, timeout=PATIENCE_SECONDS) as answer:
        for line in answer.iter_lines():
            event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            text += event.get("data", "") if event.get("type") == "log" else ""
    job = httpx.get(f"{place.url}/jobs/{job_id}", headers=headers).json()
    assert (job["status"], job["success"]) == ("completed", True), (job, text)
    return text


def stop_all(place: Place, *all_running: Running) -> None:
    """End programs, all of which have to end well."""
    for running in all_running:
        ended = place.machine.stop(running)
        assert ended.code == 0, ended


def test_services_of_compose_run_a_job(place: Place, elsewhere: Callable[..., None]) -> None:
    """Each is healthy, a job goes from the server to a controller, whose user sees no accounts; doctor is content."""
    server, controller = place.service("server"), place.service("controller")
    words = [*server.command, "--port", str(place.web_port)]
    started = [place.machine.start(words, server.environment)]
    place.machine.wait_until_healthy(started[0], server.health_check, server.environment)
    replicas = range(place.compose["services"]["controller"]["deploy"]["replicas"])
    started += [place.machine.start(controller.command, controller.environment) for _ in replicas]
    place.machine.wait_until_healthy(started[-1], controller.health_check, controller.environment)
    for running in started[1:]:
        running.wait_for_error("takes jobs from default")
    job_id = submit(place, "echo built; env | grep -c CI_EVENTSTORE_URL; true")
    assert log_of(place, job_id) == "built\n0\n"
    found = json.loads(place.machine.call(["ci-eventstore", "doctor", "--json"], server.environment).out)
    # That the machine is slow at the moment says nothing of the settings.
    wrong = [each for each in found if each["severity"] not in {"ok", "note"} and each["check"] not in BY_CHANCE]
    assert (wrong, len(found) > len(BY_CHANCE)) == ([], True)
    refused = place.machine.call(["ci-eventstore", "user", "list"], controller.environment)
    assert "lacks a right" in refused.err, refused
    with Redis(port=place.store_port, username="admin", password="secret-of-admin") as admin:
        admin.acl_log_reset()
    stop_all(place, *started)


def start_unit(place: Place, unit: Unit, secret: Path) -> Running:
    """Start what a unit starts, with the standard input that systemd opens."""
    return place.machine.start(unit.command("default"), unit.settings, secret)


def test_units_run_a_job(place: Place, elsewhere: Callable[..., None]) -> None:
    """Server, controller and retention have the store's URL from standard input, and end well at SIGTERM."""
    elsewhere({"/opt/ci-eventstore/bin/ci-eventstore": "ci-eventstore"})
    server = start_unit(place, read_unit(UNITS / "ci-eventstore-server.service"), place.secret("server"))
    controller = start_unit(place, read_unit(UNITS / "ci-eventstore-controller@.service"), place.secret("controller"))
    place.wait_for("/ready", server)
    assert log_of(place, submit(place, "echo built")) == "built\n"
    retention = start_unit(place, read_unit(UNITS / "ci-eventstore-retention.service"), place.secret("server")).end()
    assert retention.code == 0, retention
    stop_all(place, controller, server)


def start_pod(place: Place, elsewhere: Callable[..., None], kind: str, name: str, secret: Path) -> Running:
    """Start the container of a workload."""
    container = container_of(manifest(kind, name))
    elsewhere({"/etc/ci-eventstore/url": str(secret)})
    service = ours(container["args"], variables_of(container))
    serves = container["args"][0] == "serve"
    return place.machine.start([*service.command, *(["--port", "8000"] if serves else [])], service.environment)


def test_pods_are_ready_and_counted(place: Place, elsewhere: Callable[..., None], tmp_path: Path) -> None:
    """Probes succeed; KEDA's numbers are those of jobs that wait and run; rules for alerts name what there is."""
    server = start_pod(place, elsewhere, "Deployment", "ci-eventstore-server", place.secret("server"))
    container = container_of(manifest("Deployment", "ci-eventstore-server"))
    [port] = [port for port in container["ports"] if port["name"] == container["livenessProbe"]["httpGet"]["port"]]
    assert place.machine.here(str(port["containerPort"])) == str(place.web_port)
    for probe in ("livenessProbe", "readinessProbe"):
        place.wait_for(container[probe]["httpGet"]["path"], server)
    job_id = submit(place, f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo built")
    triggers = manifest("ScaledObject", "ci-eventstore-controller")["spec"]["triggers"]

    def numbers() -> dict[str, float | None]:
        return {trigger["name"]: place.read_metric(trigger["metadata"]["valueLocation"]) for trigger in triggers}

    wait_until(lambda: numbers() == {"waiting": 1, "running": 0}, "a job that waits", PATIENCE_SECONDS)
    controller = start_pod(place, elsewhere, "Deployment", "ci-eventstore-controller", place.secret("controller"))
    wait_until(lambda: numbers() == {"waiting": 0, "running": 1}, "a job that runs", PATIENCE_SECONDS)
    (tmp_path / "go").touch()
    assert log_of(place, job_id) == "built\n"
    rules = yaml.safe_load((ROOT / "examples" / "prometheus" / "rules.yml").read_text())["groups"][0]["rules"]
    shown = {line.partition("{")[0].partition(" ")[0] for line in httpx.get(f"{place.url}/metrics").text.splitlines()}
    known = shown | {"up"} | {rule["record"] for rule in rules if "record" in rule}
    assert {selector.name for rule in rules for selector in read_expression(rule["expr"])} <= known
    stop_all(place, controller)
    job_id = submit(place, "echo built")
    one = start_pod(place, elsewhere, "ScaledJob", "ci-eventstore-job", place.secret("controller"))
    assert log_of(place, job_id) == "built\n"
    assert one.end().code == 0
    stop_all(place, server)


def node_port() -> int:
    """Return a port that is free as well as the one 10,000 above it, which nodes use among themselves."""
    while True:
        port = spare_port()
        with socket.socket() as probe, contextlib.suppress(OSError):
            # Below the ports of outgoing connections.
            if port < 22_000:
                probe.bind(("127.0.0.1", port + 10_000))
                return port


def test_nodes_of_compose_become_a_cluster(place: Place, elsewhere: Callable[..., None]) -> None:
    """One service joins six nodes, once; then a server is healthy on them, and a command is run as a job there."""
    services, machine = place.compose["services"], place.machine
    names = [name for name in services if name.startswith("node-")]
    ports = {name: node_port() for name in names}
    places = {name: services[name]["networks"]["cluster"]["ipv4_address"] for name in names}
    elsewhere({f"{places[name]}:6379": f"127.0.0.1:{port}" for name, port in ports.items()})
    elsewhere({f"-h {places[name]}": f"-h 127.0.0.1 -p {port}" for name, port in ports.items()})
    nodes = {name: theirs(services[name], machine.folder / name, port) for name, port in ports.items()}
    started = {name: machine.start(node.command, node.environment) for name, node in nodes.items()}
    for name, node in nodes.items():
        machine.wait_until_healthy(started[name], node.health_check, node.environment)
    joining = services["cluster"]["command"]
    for _ in range(2):
        joined = machine.call(joining, {"STAND_IN_PORT": str(ports["node-1"])})
        assert joined.code == 0, joined
    server = place.service("cluster-server")
    running = machine.start([*server.command, "--port", "8000"], server.environment)
    machine.wait_until_healthy(running, server.health_check, server.environment)
    place.wait_for("/ready", running)
    done = machine.call(["ci-eventstore", "run", "--", "echo", "hello"], server.environment)
    assert (done.code, done.text) == (0, "hello\n"), done
    verified = machine.call(["ci-eventstore", "verify"], server.environment)
    assert verified.code == 0, verified
    stop_all(place, running, *started.values())
