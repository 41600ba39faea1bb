"""`serve` on a Unix socket, behind a proxy, with an access log."""

import json
import signal
from pathlib import Path

import httpx

from tests.acceptance.command_line import CommandLine
from tests.acceptance.test_serve import create_key


def test_a_socket_a_prefix_and_an_access_log(cli: CommandLine, tmp_path: Path) -> None:
    """A proxy reaches it by the socket, and is believed; the log has who asked, and no key."""
    key, path = create_key(cli), tmp_path / "web.sock"
    running = cli.start("serve", "--uds", str(path), "--root-path", "ci/", "--access-log")
    running.wait_for_error(f"serving on {path}")
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9", "Host": "ci.example"}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://ci.example") as client:
        login = client.post("/login", json={"key": key}, headers=headers)
        assert "Path=/ci;" in login.headers["set-cookie"]
        assert "Secure" in login.headers["set-cookie"]
        asked = {**headers, "Authorization": f"Bearer {key}"}
        assert client.get("/jobs?limit=7", headers=asked).json() == []
        created = client.post("/jobs", json={"command": "a"}, headers=asked)
        assert created.headers["location"].startswith("/ci/jobs/")
    running.send(signal.SIGTERM)
    ended = running.end()
    assert ended.code == 0
    assert not path.exists()
    lines = [json.loads(line) for line in ended.out.splitlines()]
    shown = [(line["method"], line["path"], line["status"], line["user"], line["client"]) for line in lines]
    assert shown == [
        ("POST", "/ci/login", 204, None, "203.0.113.9"),
        ("GET", "/ci/jobs", 200, "ada", "203.0.113.9"),
        ("POST", "/ci/jobs", 201, "ada", "203.0.113.9"),
    ]
    assert key not in ended.text
    assert "limit" not in ended.text


def test_settings_that_can_not_be(cli: CommandLine) -> None:
    """Each is refused with what is the matter."""
    for arguments, reason in {
        ("--root-path", "/a?b"): "is no path such as",
        ("--trusted-proxy", "proxy"): "does not appear to be",
        ("--cors-origin", "ci.example"): "must be like https://",
        ("--no-auth", "--cors-origin", "*"): "leave --cors-origin out",
    }.items():
        refused = cli("serve", *arguments)
        assert refused.code in {1, 2}, refused
        assert reason in refused.err
