"""A job's command finds neither the store's password nor a controller's secrets, wherever it looks."""

import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from ci_eventstore.cli.secrecy import shown_arguments
from tests.acceptance.command_line import PROGRAM, CommandLine, Running
from tests.acceptance.conftest import make_command_line
from tests.servers import RealServer, find_valkey

#: Shows its own variables, then those and the command line of all processes from its parent up to the first.
LOOK_AROUND = r"""
env
pid=$PPID
while [ "$pid" -gt 0 ]; do
  tr '\0' '\n' < /proc/$pid/cmdline
  tr '\0' '\n' < /proc/$pid/environ
  pid=$(cut -d ' ' -f 4 /proc/$pid/stat)
done 2>&1
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline > {everywhere} 2> /dev/null
exit 0
"""
PASSWORD = secrets.token_hex(8)
TOKEN = secrets.token_hex(8)


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[RealServer]:
    """A server with a user that has a password, beside the one without."""
    with RealServer(find_valkey(), tcp=True) as server:
        with Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "ci", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        yield server


@pytest.fixture
def cli(tcp_server: RealServer) -> Iterator[CommandLine]:
    """The program as its user calls it: without the password that its controllers have."""
    command_line = make_command_line(tcp_server.url)
    try:
        yield command_line
    finally:
        command_line.kill_all()


def url_with_password(cli: CommandLine) -> str:
    """Return the URL that a controller is given."""
    return cli.environment["CI_EVENTSTORE_URL"].replace("redis://", f"redis://ci:{PASSWORD}@")


def by_environment(cli: CommandLine, folder: Path) -> Running:
    """Start a controller that has the URL from its environment."""
    cli.environment = {**cli.environment, "CI_EVENTSTORE_URL": url_with_password(cli)}
    return cli.start("controller")


def by_command_line(cli: CommandLine, folder: Path) -> Running:
    """Start a controller that has the URL from its command line."""
    return cli.start("--url", url_with_password(cli), "controller")


def by_one_word(cli: CommandLine, folder: Path) -> Running:
    """Start a controller as a module, with the URL in one word of its command line."""
    module = [sys.executable, "-W", "error", "-m", "ci_eventstore.cli"]
    return cli.start_program(*module, "controller", f"--url={url_with_password(cli)}")


def by_file(cli: CommandLine, folder: Path) -> Running:
    """Start a controller that has the URL from a file."""
    (folder / "url").write_text(f"{url_with_password(cli)}\n")
    return cli.start("controller", "--url-file", folder / "url")


def by_pipe(cli: CommandLine, folder: Path) -> Running:
    """Start a controller that has the URL from a file that can be read once."""
    (folder / "url").write_text(f"{url_with_password(cli)}\n")
    cli.environment = {**cli.environment, "CI_EVENTSTORE_URL": ""}
    script = f"CI_EVENTSTORE_URL_FILE=/dev/fd/3 exec {PROGRAM} controller 3< <(cat {folder / 'url'})"
    return cli.start_shell(script)


def by_standard_input(cli: CommandLine, folder: Path) -> Running:
    """Start a controller that has the URL from a file that another program has opened."""
    (folder / "url").write_text(f"{url_with_password(cli)}\n")
    return cli.start_shell(f"exec {PROGRAM} controller --url-file /dev/fd/0 < {folder / 'url'}")


WAYS = (by_environment, by_command_line, by_one_word, by_file, by_pipe, by_standard_input)


@pytest.mark.slow
@pytest.mark.parametrize("start", WAYS, ids=[way.__name__ for way in WAYS])
def test_a_command_looks_around(
    cli: CommandLine, tmp_path: Path, start: Callable[[CommandLine, Path], Running]
) -> None:
    """The password is nowhere to be found, however the controller got it; nor is it in what the controller tells."""
    usual = cli.environment
    running = start(cli, tmp_path)
    running.wait_for_error("takes jobs from default")
    cli.environment = usual
    cli("submit", "--id", "j", "--", "sh", "-c", LOOK_AROUND.replace("{everywhere}", str(tmp_path / "everywhere")))
    log = cli.log("j").decode()
    assert "CI_EVENTSTORE_JOB_ID=j\n" in log
    assert "controller\n" in log
    assert PASSWORD not in log
    assert [line for line in log.splitlines() if line.startswith("CI_EVENTSTORE_URL=redis://ci:")] == []
    assert PASSWORD.encode() not in (tmp_path / "everywhere").read_bytes()
    running.send(signal.SIGTERM)
    ended = running.end()
    assert (ended.code, PASSWORD in ended.err) == (0, False)


@pytest.mark.slow  # It takes over a second of a CPU.
def test_a_controllers_secrets(cli: CommandLine, tmp_path: Path) -> None:
    """A command has those that are passed on by name, and finds no others."""
    usual = cli.environment
    cli.environment = {**usual, "TOKEN": TOKEN, "OTHER": f"other-{TOKEN}"}
    running = cli.start("controller", "--secret-env", "TOKEN", "--secret-env", "OTHER", "--pass-env", "OTHER")
    running.wait_for_error("takes jobs from default")
    cli.environment = usual
    script = LOOK_AROUND.replace("{everywhere}", "/dev/null") + f"test $OTHER = other-{TOKEN} && echo passed on"
    cli("submit", "--id", "j", "--", "sh", "-c", script.replace("exit 0", ""))
    log = cli.log("j").decode()
    assert "OTHER=***" in log
    assert "passed on\n" in log
    assert "\nTOKEN=" not in log
    running.send(signal.SIGTERM)
    assert running.end().code == 0


def test_variables_that_are_passed_on_have_to_be_there(cli: CommandLine) -> None:
    """A name that is misspelt isn't taken for an empty secret."""
    done = cli("controller", "--pass-env", "NONE")
    assert (done.code, "the environment variable NONE isn't set" in done.err) == (2, True)


def test_a_controller_that_started_itself_again_is_killed_as_before(cli: CommandLine) -> None:
    """It is the same process, and leaves nothing behind."""
    cli.environment = {**cli.environment, "CI_EVENTSTORE_URL": url_with_password(cli)}
    running = cli.start("controller")
    running.wait_for_error("takes jobs from default")
    running.send(signal.SIGKILL)
    assert running.end().code == -signal.SIGKILL


@pytest.mark.slow  # It takes over a second of a CPU.
def test_a_job_has_no_store_of_its_own(cli: CommandLine, tmp_path: Path) -> None:
    """The program says so, instead of starting an embedded store that nobody else sees."""
    running = cli.start("controller")
    running.wait_for_error("takes jobs from default")
    cli("submit", "--id", "j", "--", PROGRAM, "jobs", "list")
    log = cli.log("j").decode()
    assert "this is a controller's job, which isn't told where the store is" in log
    assert log.endswith("[exit code 2]\n")
    running.send(signal.SIGTERM)
    assert running.end().code == 0


@pytest.mark.parametrize("content", ["", "redis://a redis://b", None], ids=["empty", "two", "missing"])
def test_a_file_without_a_url(cli: CommandLine, tmp_path: Path, content: str | None) -> None:
    """What is in it isn't shown: it may be a part of a password."""
    if content is not None:
        (tmp_path / "url").write_text(content)
    done = cli("jobs", "list", "--url-file", tmp_path / "url")
    assert done.code == 2
    assert str(tmp_path / "url") in done.err
    assert "redis://" not in done.err


def test_both_a_url_and_a_file_are_refused(cli: CommandLine, tmp_path: Path) -> None:
    """It wouldn't be clear which one counts."""
    done = cli("jobs", "list", "--url", "redis://h", "--url-file", tmp_path / "url")
    assert (done.code, "can't be used together" in done.err) == (2, True)


def test_a_command_line_without_its_url() -> None:
    """In both spellings; nothing else is changed."""
    line = ["ci-eventstore", "--url", "redis://:p@h", "controller", "--url=redis://:p@h", "--name", "redis"]
    assert shown_arguments(line, "redis://:p@h") == [
        "ci-eventstore", "--url", "***", "controller", "--url=***", "--name", "redis"
    ]  # fmt: skip
    assert shown_arguments(line, None) == line
