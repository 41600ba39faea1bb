"""What goes wrong is said in one line, with a code that means something, and nothing is written."""

import asyncio
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ci_common import APIKey, Job, User
from tests.acceptance.command_line import CommandLine, Ended
from tests.servers import RealServer, find_valkey

MISTAKES = {
    "--url nonsense jobs list": (
        2,
        "the URL must begin with embedded://, redis://, rediss://, valkey://, valkeys:// or unix",
    ),
    "--url redis://localhost:port jobs list": (2, "the URL redis://… can't be read"),
    "--url '' jobs list": (2, "--url is empty"),
    "--url embedded:// jobs list": (2, "the URL embedded:// needs the directory for its data"),
    "--url embedded:///dev/null jobs list": (4, "/dev/null can't be used for an embedded server"),
    "--url unix:///no/such/socket run -- true": (4, "unix:///no/such/socket"),
    "--prefix 'a b' run -- true": (2, "the prefix 'a b' must be one or more of A-Z a-z 0-9 _ -"),
    "run --user nobody -- true": (3, "there is no user 'nobody'"),
    "run --id a{b -- true": (2, "job id 'a{b' has a brace"),
    "run --id '' -- true": (2, "job id '' is empty"),
    "run --name \udcff -- true": (2, "name '\\udcff' is not valid Unicode"),
    "tail nothing": (3, "there is no job 'nothing'"),
    "tail 'a{b'": (2, "job id 'a{b' has a brace"),
    "jobs show nothing": (3, "there is no job 'nothing'"),
    "jobs cancel nothing": (3, "there is no job 'nothing'"),
    "jobs list --user nobody": (3, "there is no user 'nobody'"),
    "jobs list --before nothing": (3, "there is no job 'nothing'"),
    "user deactivate nobody": (3, "there is no user 'nobody'"),
    "user create Ada ''": (2, "email '' is empty"),
    "key create nobody": (3, "there is no user 'nobody'"),
    "key list --user nobody": (3, "there is no user 'nobody'"),
    "key revoke nothing": (3, "there is no API key 'nothing'"),
    "verify nothing": (3, "there is no job 'nothing'"),
    "rebuild nothing": (3, "there is no job 'nothing'"),
}
MISUSES = {
    "no-such-command": "No such command 'no-such-command'",
    "tail": "Missing argument 'JOB'",
    "run": "Missing argument 'COMMAND...'",
    "run --colour -- true": "No such option",
    "jobs list --status done": "'done' is not one of 'queued', 'running', 'completed', 'failed', 'cancelled'",
    "jobs list --limit 0": "0 is not in the range x>=1",
    "tail it --after -1": "-1 is not in the range x>=0",
    "tail it --after x": "'x' is not a valid integer",
}


async def everything(cli: CommandLine) -> tuple[list[Job], list[User], list[APIKey]]:
    """Return all that is in the store."""
    async with cli.repository() as repository:
        return await repository.list_jobs(), await repository.list_users(), await repository.list_api_keys()


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_said_in_one_line(
    cli: CommandLine, here: Callable[..., Ended], arguments: str, expected: tuple[int, str]
) -> None:
    """No traceback, nothing on standard output, the documented code, and no job, user or key afterwards."""
    done = here(*shlex.split(arguments))
    code, message = expected
    assert (done.code, done.out, done.err.count("\n")) == (code, b"", 1)
    assert message in done.err
    assert asyncio.run(everything(cli)) == ([], [], [])


@pytest.mark.parametrize(("arguments", "message"), MISUSES.items(), ids=MISUSES)
def test_wrong_usage_is_explained(here: Callable[..., Ended], arguments: str, message: str) -> None:
    """The code is 2, and the last line says what is wrong."""
    done = here(*shlex.split(arguments))
    assert (done.code, done.out) == (2, b"")
    assert message in done.err.splitlines()[-1]


def test_a_mistake_ends_the_process_with_its_code(cli: CommandLine) -> None:
    """As it is said in one call, it is in a process of its own."""
    mistakes = ["tail nothing", "--prefix 'a b' verify", "--url unix:///no/such/socket verify", "no-such-command"]
    done = [cli(*shlex.split(arguments)) for arguments in mistakes]
    assert [ended.code for ended in done] == [3, 2, 4, 2]
    assert [ended.err.count("\n") for ended in done[:3]] == [1, 1, 1]


def test_without_a_command_help_is_shown(cli: CommandLine) -> None:
    """On standard error, because something was expected."""
    done = cli()
    assert (done.code, done.out, "Commands:" in done.err) == (2, b"", True)


def test_an_id_is_given_once(cli: CommandLine) -> None:
    """A job id that was used isn't used again, and the command isn't run."""
    cli("run", "--id", "it", "--", "true")
    done = cli("run", "--id", "it", "--", "echo", "ran")
    message = "ci-eventstore: there is a job 'it' already: give every job an id of its own\n"
    assert (done.code, done.out, done.err) == (2, b"", message)


def test_options_of_the_store_may_stand_before_or_behind(cli: CommandLine, embedded_url: str) -> None:
    """`--url` and `--prefix` win over the environment in both places, and the last one counts."""
    cli("run", "--id", "it", "--", "echo", "here")
    elsewhere = {"CI_EVENTSTORE_URL": "nonsense", "CI_EVENTSTORE_PREFIX": "not this"}
    prefix = cli.environment["CI_EVENTSTORE_PREFIX"]
    assert cli("--url", embedded_url, "--prefix", prefix, "tail", "it", environment=elsewhere).text == "here\n"
    assert cli("tail", "it", "--url", embedded_url, "--prefix", prefix, environment=elsewhere).text == "here\n"
    assert cli("--prefix", "wrong", "tail", "it", "--prefix", prefix).text == "here\n"


def test_the_default_store_is_embedded_in_the_data_directory(cli: CommandLine, tmp_path: Path) -> None:
    """Without any setting, data is kept under the user's data directory, and is there in the next call."""
    without = {"CI_EVENTSTORE_URL": "", "CI_EVENTSTORE_PREFIX": "", "XDG_DATA_HOME": str(tmp_path)}
    assert cli("run", "--id", "it", "--", "echo", "kept", environment=without).code == 0
    assert cli("tail", "it", environment=without).text == "kept\n"
    assert (tmp_path / "ci-eventstore").is_dir()


@pytest.fixture
def unsuitable() -> Iterator[RealServer]:
    """A server that may throw keys away."""
    with RealServer(find_valkey(), "maxmemory-policy allkeys-lru") as server:
        yield server


def test_an_unsuitable_server_is_refused(cli: CommandLine, unsuitable: RealServer) -> None:
    """The line says what to change."""
    done = cli("--url", unsuitable.url, "jobs", "list")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "set it to noeviction" in done.err


def test_a_command_that_may_only_read(cli: CommandLine) -> None:
    """With CI_EVENTSTORE_ACCESS=read jobs are shown, and whatever writes is refused in one line."""
    reading = {"CI_EVENTSTORE_ACCESS": "read"}
    assert cli("run", "--", "true").code == 0
    assert cli("jobs", "list", environment=reading).code == 0
    refused = cli("submit", "--", "true", environment=reading)
    assert refused.code != 0
    assert refused.err.count("\n") == 1
    assert "access='read'" in refused.err
    assert "must be 'read' or 'write'" in cli("jobs", "list", environment={"CI_EVENTSTORE_ACCESS": "all"}).err


def test_a_command_that_waits_for_replicas(cli: CommandLine) -> None:
    """CI_EVENTSTORE_REPLICAS says for how many; a server that has none has done what it says no replica has."""
    refused = cli("submit", "--", "true", environment={"CI_EVENTSTORE_REPLICAS": "1"})
    assert "0 of 1 replicas have it" in refused.err
    assert "must be a number of replicas" in cli("jobs", "list", environment={"CI_EVENTSTORE_REPLICAS": "all"}).err
    assert cli("jobs", "list", environment={"CI_EVENTSTORE_REPLICAS": "0"}).code == 0
