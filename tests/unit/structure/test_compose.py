"""The server of docker-compose.yml keeps what it is given and is reachable from its own machine only."""

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.unit.structure.source import ROOT


@pytest.fixture(scope="module")
def compose() -> Mapping[str, Any]:
    """The parsed file."""
    parsed: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return parsed


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


def test_every_setting_is_text(valkey: Mapping[str, Any]) -> None:
    """No word of the command line is one that YAML reads as something else, as it does with a bare yes."""
    assert all(isinstance(word, str) for word in valkey["command"])


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
