"""How the server is reached: trusted proxies, Unix sockets, the access log."""

import json
import logging
from pathlib import Path
from typing import Any

import click
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from ci_eventstore.cli.serve import checked_networks, checked_root_path
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.web import WebSettings
from ci_eventstore.web.access_log import FIELDS, USER, AsJSON
from ci_eventstore.web.server import Service, listen_at, server_config

FORWARDED = [(b"x-forwarded-for", b"203.0.113.9, 198.51.100.7"), (b"x-forwarded-proto", b"https")]


async def answer(service: Service, client: tuple[str, int] | None, path: str = "/x", query: bytes = b"") -> list[str]:
    """Return the scheme and client that an application sees behind a server."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        seen.extend([request.url.scheme, request.client.host if request.client else "-"])
        scope[USER] = "ada"
        await PlainTextResponse("hello", 203)(scope, receive, send)

    async def send(message: Any) -> None:
        pass

    async def receive() -> Any:
        raise AssertionError

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": FORWARDED}
    scope |= {"client": client, "scheme": "http", "server": ("here", 80)}
    await server_config(app, service).app(scope, receive, send)  # type: ignore[operator,arg-type,misc,call-arg]
    return seen


@pytest.mark.parametrize(
    ("trusted", "client", "seen"),
    [
        (("127.0.0.1", "::1"), ("127.0.0.1", 1), ["https", "198.51.100.7"]),
        (("127.0.0.1", "::1"), ("10.0.0.1", 1), ["http", "10.0.0.1"]),
        (("10.0.0.0/8",), ("10.0.0.1", 1), ["https", "198.51.100.7"]),
        (("10.0.0.0/8",), ("127.0.0.1", 1), ["http", "127.0.0.1"]),
        (("10.0.0.0/8", "198.51.100.7"), ("10.0.0.1", 1), ["https", "203.0.113.9"]),
        ((), ("127.0.0.1", 1), ["http", "127.0.0.1"]),
        ((), None, ["https", "198.51.100.7"]),
    ],
)
async def test_who_is_believed(trusted: tuple[str, ...], client: tuple[str, int] | None, seen: list[str]) -> None:
    """Those that are trusted, and whoever comes over a Unix socket; then the last address that isn't a trusted one."""
    assert await answer(Service(trusted_proxies=trusted), client) == seen


async def test_an_access_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With who, what, and how it went; without the query, and without a key that stands in the path."""
    caplog.set_level(logging.INFO, "ci_eventstore.web.access")
    key = "ci_UI5GJ7Q5f7THeZO7n0SirGeYihlfSFgNYmTkFumL"
    await answer(Service(has_access_log=True), ("127.0.0.1", 1), f"/jobs/{key}\n", b"key=secret")
    [record] = [record for record in caplog.records if record.name == "ci_eventstore.web.access"]
    line = AsJSON().format(record)
    assert "\n" not in line
    assert "secret" not in line
    assert key not in line
    found = json.loads(line)
    assert list(found) == ["time", *FIELDS]
    assert found["seconds"] >= 0
    expected = {"client": "198.51.100.7", "user": "ada", "method": "GET", "status": 203, "bytes": 5}
    assert expected.items() <= found.items()
    assert found["path"] == "/jobs/ci_***\n"


async def test_nothing_is_logged_unless_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """No record is made."""
    caplog.set_level(logging.INFO, "ci_eventstore.web.access")
    await answer(Service(), ("127.0.0.1", 1))
    assert caplog.records == []


def test_a_socket_that_is_left_over_is_used_again(tmp_path: Path) -> None:
    """One whose server lives isn't; nor is a file that is no socket; at the end it is gone."""
    path = tmp_path / "web.sock"
    with listen_at(path):
        with pytest.raises(OSError, match="in use"), listen_at(path):
            pass
        assert path.is_socket()
    assert not path.exists()
    left = listen_at(path)
    with left as listening:
        listening.close()
        with listen_at(path) as again:
            assert again.fileno() > 0
    path.write_text("a file")
    with pytest.raises(OSError, match="in use"), listen_at(path):
        pass
    assert path.read_text() == "a file"


@pytest.mark.parametrize(
    ("text", "path"),
    [("", ""), ("/", ""), ("ci", "/ci"), ("/ci", "/ci"), ("/ci/", "/ci"), ("a/b-c_d.e~1/", "/a/b-c_d.e~1")],
)
def test_root_paths(text: str, path: str) -> None:
    """A prefix has a slash in front and none at the end, however it is given."""
    assert checked_root_path(click.Context(click.Command("serve")), click.Option(["--x"]), text) == path


@pytest.mark.parametrize("text", ["a//b", "..", "/a/../b", "/a?b", "/a#b", "/a b", "http://a/b", "/ä", "/a%2fb", "\n"])
def test_what_is_no_root_path(text: str) -> None:
    """It is refused where it is given, not with each request."""
    with pytest.raises(click.BadParameter, match="is no path such as"):
        checked_root_path(click.Context(click.Command("serve")), click.Option(["--x"]), text)


@pytest.mark.parametrize("text", ["*", "proxy.example", "10.0.0.1/8", "127.0.0.1:80"])
def test_what_is_no_proxy(text: str) -> None:
    """Names and wildcards are refused: whoever is believed has an address."""
    with pytest.raises(click.BadParameter):
        checked_networks(click.Context(click.Command("serve")), click.Option(["--x"]), ("10.0.0.0/8", text))


@pytest.mark.parametrize("origin", ["ci.example", "https://ci.example/", "https://ci.example/x", "null", "https://*"])
def test_what_is_no_origin(origin: str) -> None:
    """A browser would never send it."""
    with pytest.raises(ConfigurationError, match="cors_origins"):
        WebSettings(cors_origins=(origin,))
