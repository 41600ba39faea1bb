"""The store of docker-compose.yml keeps what it is given; only its own machine and its users reach it."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.operating.images import IMAGE, read_compose
from tests.unit.structure.source import ROOT

PASSWORDS = {f"{who}_PASSWORD": f"secret-of-{who.lower()}" for who in ("ADMIN", "SERVER", "CONTROLLER")}


@pytest.fixture(scope="module")
def compose() -> Mapping[str, Any]:
    """The parsed file."""
    return read_compose(PASSWORDS)


@pytest.fixture(scope="module")
def valkey(compose: Mapping[str, Any]) -> Mapping[str, Any]:
    """The service of the server."""
    service: Mapping[str, Any] = compose["services"]["valkey"]
    return service


@pytest.fixture(scope="module")
def settings(valkey: Mapping[str, Any]) -> dict[str, str]:
    """The server's settings, as its command line gives them."""
    program, *arguments = valkey["command"]
    assert program == "valkey-server"
    return {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}


def test_every_word_is_text(compose: Mapping[str, Any]) -> None:
    """No word of a command line is one that YAML reads as something else, as it does with a bare yes."""
    for service in compose["services"].values():
        assert all(isinstance(word, str) for word in service["command"])


@pytest.mark.parametrize("missing", PASSWORDS)
def test_there_is_no_password_by_default(missing: str) -> None:
    """Without one of the three, nothing starts, and the error says where to look."""
    with pytest.raises(LookupError, match=f"{missing} is missing, see the top of docker-compose.yml"):
        read_compose({name: text for name, text in PASSWORDS.items() if name != missing})


def test_users_have_the_rights_of_the_document(compose: Mapping[str, Any]) -> None:
    """Servers and controllers may do what docs/operations.md says, and whoever has no password may ping."""
    document = (ROOT / "docs" / "operations.md").read_text()
    users = dict(re.findall(r"^user (\S+) (.*)$", compose["configs"]["users"]["content"], re.MULTILINE))
    for name in ("server", "controller"):
        [rules] = re.findall(rf"^    ACL SETUSER ci-{name} (.*)$", document, re.MULTILINE)
        assert users[f"ci-{name}"] == rules.replace("PASSWORD", f"secret-of-{name}")
    assert users["default"] == "on nopass resetkeys resetchannels -@all +ping"
    assert set(users) == {"default", "admin", "ci-server", "ci-controller"}


def test_ours_can_write_only_where_they_are_told(compose: Mapping[str, Any]) -> None:
    """Servers and controllers can't become root, and see projects under the same path; only the server writes them."""
    ours = {name: service for name, service in compose["services"].items() if "build" in service}
    assert set(ours) == {"server", "controller", "cluster-server"}
    for service in ours.values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    for name in ("server", "controller"):
        assert ours[name]["depends_on"]["valkey"]["condition"] == "service_healthy"
    folder = f"{IMAGE.settings['XDG_DATA_HOME']}/ci-eventstore/files"
    assert ours["server"]["volumes"][0] == f"projects:{folder}"
    assert ours["controller"]["volumes"][0] == f"projects:{folder}:ro"
    assert ours["controller"]["deploy"]["replicas"] == 2


def test_a_controller_has_time_for_its_jobs(compose: Mapping[str, Any]) -> None:
    """It is killed after its grace, not before."""
    command = compose["services"]["controller"]["command"]
    minutes = int(command[command.index("--grace") + 1].removesuffix("m"))
    assert int(compose["services"]["controller"]["stop_grace_period"].removesuffix("s")) > 60 * minutes


def test_a_cluster_is_started_only_if_asked_for(compose: Mapping[str, Any]) -> None:
    """Six nodes with volumes and fixed addresses, one service that joins them, and one that uses them once they are."""
    services, others = compose["services"], {"valkey", "server", "controller"}
    nodes = {name: service for name, service in services.items() if name.startswith("node-")}
    assert set(services) - set(nodes) - others == {"cluster", "cluster-server"}
    assert all(services[name]["profiles"] == ["cluster"] for name in set(services) - others)
    addresses = [node["networks"]["cluster"]["ipv4_address"] for node in nodes.values()]
    assert len(set(addresses)) == 6
    assert re.findall(r"(\S+):6379", services["cluster"]["command"][-1]) == addresses
    assert sorted(services["cluster"]["depends_on"]) == sorted(nodes)
    assert services["cluster-server"]["depends_on"] == {"cluster": {"condition": "service_completed_successfully"}}
    within = {name for name, service in services.items() if "cluster" in service.get("networks", ())}
    assert within - set(nodes) == {"cluster", "cluster-server"}
    assert [volume for node in nodes.values() for volume in node["volumes"]] == [f"{name}:/data" for name in nodes]


@pytest.mark.parametrize(
    ("name", "value"), [("appendonly", "yes"), ("appendfsync", "everysec"), ("maxmemory-policy", "noeviction")]
)
def test_the_server_keeps_what_it_is_given(settings: dict[str, str], name: str, value: str) -> None:
    """It has an append-only file, written to disk every second, and never drops a key."""
    assert settings[name] == value


def test_the_file_is_on_a_named_volume(compose: Mapping[str, Any], valkey: Mapping[str, Any]) -> None:
    """The data outlives the container."""
    volume, _, folder = valkey["volumes"][0].partition(":")
    assert (volume in compose["volumes"], folder) == (True, "/data")


def test_the_image_is_pinned(valkey: Mapping[str, Any]) -> None:
    """Its tag names a major and a minor version."""
    image, _, tag = valkey["image"].partition(":")
    assert image == "valkey/valkey"
    assert [part.isdecimal() for part in tag.partition("-")[0].split(".")] == [True, True]


def test_ports_are_bound_to_this_machine(compose: Mapping[str, Any]) -> None:
    """No service can be reached from elsewhere."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(ipaddress.ip_address(port.split(":")[0]).is_loopback for port in ports)


def test_the_server_is_watched_and_restarted(valkey: Mapping[str, Any]) -> None:
    """It has a health check that asks the server itself, and comes back after a crash."""
    assert "valkey-cli ping" in valkey["healthcheck"]["test"][-1]
    assert valkey["restart"] in {"always", "unless-stopped"}
