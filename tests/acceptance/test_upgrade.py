"""`ci-eventstore upgrade`, on a store that the program at 3d243d1 wrote, and that program itself."""

import asyncio
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from ci_eventstore.keys import Keys
from tests import old_store
from tests.acceptance.command_line import CommandLine
from tests.acceptance.conftest import make_command_line
from tests.integration.store.test_rights import LINES
from tests.servers import RealServer, find_valkey

STORE = Keys("ci").store
#: Its `src`, since a checkout may come without the history.
OLD_PROGRAM = Path(__file__).parents[1] / "data" / "program_3d243d1.zip"


@pytest.fixture
def old_server() -> Iterator[RealServer]:
    with RealServer(find_valkey(), tcp=True) as started:
        asyncio.run(_load(started))
        yield started


async def _load(server: RealServer) -> None:
    async with AsyncRedis(port=server.port) as client:
        await old_store.load(client)


def command_line(server: RealServer, user: str = "") -> CommandLine:
    url = f"redis://{user}127.0.0.1:{server.port}"
    return CommandLine({**make_command_line(url).environment, "CI_EVENTSTORE_PREFIX": "ci"})


@pytest.mark.slow
def test_a_store_is_upgraded_at_the_command_line(old_server: RealServer) -> None:
    """Refused, waited for, interrupted, killed, and finished by a user with the least rights: the store is whole."""
    with Redis(port=old_server.port) as admin:
        rules = LINES["ci-upgrade"].replace("PASSWORD", "sesame").split()
        admin.execute_command("ACL", "SETUSER", "ci-upgrade", *rules)
    cli, upgrader = command_line(old_server), command_line(old_server, "ci-upgrade:sesame@")
    try:
        refused = cli("jobs", "list")
        assert (refused.code, refused.err.count("\n")) == (4, 1)
        assert "run `ci-eventstore upgrade` once" in refused.err
        unasked = upgrader("upgrade")
        assert (unasked.code, "give --yes" in unasked.err) == (2, True)
        for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
            waiting = upgrader.start("upgrade", "--yes")
            waiting.wait_for_error("4 claimed jobs")
            waiting.send(number)
            assert waiting.end().code == code
            assert "`ci-eventstore upgrade` finishes it" in cli("jobs", "list").err
        assert upgrader("upgrade", "--cancel").code == 0
        done = upgrader("upgrade", "--yes", "--force")
        assert (done.code, done.err) == (0, "ci-eventstore: the store has format version 5\n")
        assert upgrader("upgrade", "--yes").code == 0
        assert cli("verify").err == "ci-eventstore: no differences\n"
    finally:
        upgrader.kill_all()
    with Redis(port=old_server.port) as admin:
        assert [entry["object"] for entry in admin.acl_log() if entry["object"] != "client|setinfo"] == []


@pytest.mark.slow
def test_the_old_program_refuses_a_store_that_is_marked_or_upgraded(old_server: RealServer, tmp_path: Path) -> None:
    """The program of the old version itself: it opens the store, then refuses it in a sentence, without a traceback."""
    with zipfile.ZipFile(OLD_PROGRAM) as program:
        program.extractall(tmp_path)
    url = f"redis://127.0.0.1:{old_server.port}"

    def call_old() -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "CI_EVENTSTORE_PREFIX": "ci"}
        command = [sys.executable, "-m", "ci_eventstore.cli", "jobs", "list", "--url", url]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert call_old().returncode == 0, call_old().stderr
    cli = command_line(old_server)
    with Redis(port=old_server.port) as admin:
        admin.hset(STORE, mapping={"format": 0, "upgrading": "waiting"})
    marked = call_old()
    assert (marked.returncode, marked.stderr.count("\n")) == (4, 1)
    assert "has format version 0, this program reads 1" in marked.stderr
    assert cli("upgrade", "--yes", "--force").code == 0
    upgraded = call_old()
    assert (upgraded.returncode, upgraded.stderr.count("\n")) == (4, 1)
    assert "has format version 5, this program reads 1" in upgraded.stderr
