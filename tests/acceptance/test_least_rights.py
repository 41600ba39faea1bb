"""The commands, each under the least user of the server that the document has for it."""

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.acceptance.command_line import CommandLine
from tests.acceptance.conftest import make_command_line
from tests.acceptance.test_controller import start_controller, stop
from tests.integration.store.test_rights import LINES
from tests.servers import RealServer, find_valkey, wait_until


@pytest.fixture(scope="module")
def guarded() -> Iterator[RealServer]:
    with RealServer(find_valkey(), tcp=True) as started, Redis(port=started.port) as admin:
        for name, rules in LINES.items():
            admin.execute_command("ACL", "SETUSER", name, *rules.replace("PASSWORD", "sesame").split())
        yield started


def command_line(server: RealServer, name: str, **environment: str) -> CommandLine:
    """Return the program with the URL of a user, and the prefix that the document's rights are for."""
    url = f"redis://{name}:sesame@127.0.0.1:{server.port}"
    return CommandLine({**make_command_line(url).environment, "CI_EVENTSTORE_PREFIX": "ci", **environment})


def refused(server: RealServer) -> list[object]:
    """Return what the server has refused since the last call."""
    with Redis(port=server.port, decode_responses=True) as admin:
        log = [entry["object"] for entry in admin.acl_log() if entry["object"] != "client|setinfo"]
        admin.acl_log_reset()
        return log


@pytest.mark.slow
def test_each_command_under_its_least_user(guarded: RealServer) -> None:
    """What a controller, a server and a reader do at the command line works, and nothing of it is refused."""
    worker = command_line(guarded, "ci-controller")
    assert worker("run", "--id", "ran", "--", "echo", "hello").code == 0
    assert worker("submit", "--id", "queued", "--", "echo", "done").code == 0
    assert worker("submit", "--id", "never", "--queue", "other", "--", "true").code == 0
    assert worker("jobs", "cancel", "never").code == 0
    assert worker("queues").code == 0
    controller = start_controller(worker, "one")
    wait_until(lambda: worker("jobs", "list").text.count("completed") == 2, "the end of both jobs")
    stop(controller)
    assert refused(guarded) == []

    server = command_line(guarded, "ci-server")
    assert server("user", "create", "Ada", "ada@example.com", "--id", "ada").code == 0
    assert server("key", "create", "ada").code == 0
    for command in (("user", "list"), ("key", "list"), ("verify",), ("rebuild",), ("restored",)):
        done = server(*command)
        assert done.code == 0, done.err
    assert refused(guarded) == []

    reader = command_line(guarded, "ci-reader", CI_EVENTSTORE_ACCESS="read")
    assert reader("jobs", "list").text.count("completed") == 2
    assert "ran" in reader("jobs", "show", "ran").text
    assert reader("tail", "ran").text == "hello\n"
    assert refused(guarded) == []


@pytest.mark.slow
def test_a_refusal_that_lasts_is_mentioned_while_it_is_waited_for(guarded: RealServer) -> None:
    """A first `submit` to a server that refuses says so after a second, and ends in the server's words."""
    worker = command_line(guarded, "ci-controller")
    with Redis(port=guarded.port) as admin:
        admin.config_set("min-replicas-to-write", 1)
        try:
            done = worker("submit", "--", "true")
        finally:
            admin.config_set("min-replicas-to-write", 0)
    mentioned, told = done.err.splitlines()
    assert done.code == 4
    assert mentioned.startswith("ci-eventstore: redis://***@")
    assert "trying again: NOREPLICAS" in mentioned
    assert told.endswith("NOREPLICAS Not enough good replicas to write.")
