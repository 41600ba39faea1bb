"""`run --secret-env`: the value of the variable reaches the terminal, and nothing else."""

import base64
import json
import os
import re
import shlex
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis
import zstandard

from tests.acceptance.command_line import CommandLine, Ended, python
from tests.servers import RealServer

SECRET = "hunter2-Zähler-0815"
TWO_LINES = "first-line-of-a-key\nsecond-line-of-a-key\n"
#: Something to be found, so that a search that finds nothing has searched.
CONTROL = "for all to see"
#: More than a chunk needs to be compressed.
FILLER = "filler " * 500
MAGIC = b"\x28\xb5\x2f\xfd"
VARIABLES = {"TOKEN": SECRET, "KEY": TWO_LINES}

READS = {
    b"string": ["GET {}"],
    b"hash": ["HGETALL {}"],
    b"zset": ["ZRANGE {} 0 -1"],
    b"set": ["SMEMBERS {}"],
    b"list": ["LRANGE {} 0 -1"],
    b"stream": ["XRANGE {} - +"],
}


def values_in(server: RealServer) -> Iterator[bytes]:
    """Yield the name and the values of every key, and what the server has written to its disk."""
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        for key in client.scan_iter(count=1000):
            yield key
            yield client.execute_command("DUMP", key)
            [read] = READS[client.type(key)]
            command, *rest = read.split()
            yield from flatten(client.execute_command(command, *(key if word == "{}" else word for word in rest)))
    for path in server.folder.rglob("*.aof"):
        yield path.read_bytes()


def flatten(reply: object) -> Iterator[bytes]:
    """Yield all that is in a reply, whatever is nested in it."""
    if isinstance(reply, dict):
        reply = [*reply, *reply.values()]
    if isinstance(reply, list | tuple | set):
        for part in reply:
            yield from flatten(part)
    else:
        yield reply if isinstance(reply, bytes) else str(reply).encode()


def unpacked(value: bytes) -> Iterator[bytes]:
    """Yield a value, and what is compressed in it."""
    yield value
    for found in re.finditer(re.escape(MAGIC), value):
        try:
            yield zstandard.ZstdDecompressor().decompressobj().decompress(value[found.start() :])
        except zstandard.ZstdError:
            continue


def found_in(server: RealServer, text: str) -> list[bytes]:
    """Return everything on the server that has a text in it."""
    return [value for packed in values_in(server) for value in unpacked(packed) if text.encode() in value]


def run_masked(cli: CommandLine, *arguments: str | Path, names: Sequence[str] = ("TOKEN", "KEY")) -> Ended:
    """Run a job whose secrets are in these variables."""
    options = [word for name in names for word in ("--secret-env", name)]
    return cli("run", "--id", "it", *options, *arguments, environment=VARIABLES)


def assert_nothing_leaked(server: RealServer) -> None:
    """Look for the secrets in every byte, having found that the search finds what is there."""
    assert len(found_in(server, CONTROL)) >= 3
    for secret in (SECRET, *TWO_LINES.split()):
        assert found_in(server, secret) == []


def test_a_secret_printed_in_two_halves(own_cli: CommandLine, server: RealServer) -> None:
    """However it comes, alone or among much else, the log has a mask; the terminal has what was printed."""
    program = f"""
import os, select
secret = os.environ["TOKEN"].encode()
os.write(1, b"{CONTROL} ")
for cut in (1, len(secret) // 2, len(secret) - 1):
    os.write(1, b"<" + secret[:cut])
    select.select([], [], [], 0.3)
    os.write(1, secret[cut:] + b">")
os.write(1, b"{FILLER}" + secret + b"{FILLER} {CONTROL}\\n" + secret)
"""
    done = run_masked(own_cli, "--", *python(program))
    printed = f"{CONTROL} " + f"<{SECRET}>" * 3 + f"{FILLER}{SECRET}{FILLER} {CONTROL}\n{SECRET}"
    assert (done.code, done.text) == (0, printed)
    assert own_cli.log("it").decode() == printed.replace(SECRET, "***")
    assert found_in(server, FILLER) != [], "the search looks into compressed chunks"
    assert_nothing_leaked(server)


def test_a_secret_of_several_lines(own_cli: CommandLine, server: RealServer) -> None:
    """Each of its lines is masked, together and apart, with whatever line ends."""
    program = f"""
import os
one, two = os.environ["KEY"].split()
print("{CONTROL}", os.environ["KEY"], "| " + one + "\\r\\n| " + two + "\\r\\n" + two + " " + one + "{FILLER}{CONTROL}")
"""
    done = run_masked(own_cli, "--", *python(program))
    assert "second-line-of-a-key first-line-of-a-key" in done.text
    assert own_cli.log("it").decode() == f"{CONTROL} ***\n | ***\r\n| ***\r\n*** ***{FILLER}{CONTROL}\n"
    assert_nothing_leaked(server)


def test_a_secret_in_name_and_arguments(own_cli: CommandLine, server: RealServer) -> None:
    """The command gets it; the job that is stored has masks."""
    script = 'printf "%s\\n" "$1"; printf "%s\\n" "$2"'
    name = f"{CONTROL} with {SECRET}"
    done = run_masked(own_cli, "--name", name, "--", "sh", "-c", script, CONTROL, f"--token={SECRET}", TWO_LINES)
    assert done.text == f"--token={SECRET}\n{TWO_LINES}\n"
    job = json.loads(own_cli("jobs", "show", "it", "--json").out)
    assert job["name"] == f"{CONTROL} with ***"
    assert job["command"] == ["sh", "-c", script, CONTROL, "--token=***", "***\n"]
    assert_nothing_leaked(server)


def test_a_secret_in_what_run_itself_says(own_cli: CommandLine, server: RealServer) -> None:
    """A command that can't be started has its name in the log, and that may be a secret; quotes in it don't help."""
    variables = {"TOKEN": 'it\'s\\a "secret"'}
    done = own_cli(
        "run", "--secret-env", "TOKEN", "--name", CONTROL, "--", f"./{variables['TOKEN']}", environment=variables
    )
    assert done.code == 127
    assert own_cli.log(done.job_id).decode() == "['./***' can't be started: No such file or directory]\n"
    assert found_in(server, "secret") == []
    assert found_in(server, CONTROL) != []


def test_a_secret_in_the_reason_of_a_cancel(own_cli: CommandLine) -> None:
    """Whatever the secret, `run` doesn't store it, in its own words neither."""
    script = "ci-eventstore run --id it --secret-env TOKEN -- sh -c 'kill -TERM $PPID; sleep 1000'"
    own_cli.environment = {**own_cli.environment, "TOKEN": "SIGTERM"}
    assert own_cli.shell(script).code == 143
    assert own_cli.log("it").decode() == "[cancelled: stopped by ***]\n"


def test_bytes_that_are_no_unicode_are_masked(own_cli: CommandLine) -> None:
    """A secret is bytes, to the command and to the log."""
    script = (
        "export TOKEN=$'caf\\xe9-secret'; ci-eventstore run --id it --secret-env TOKEN -- sh -c 'echo \"<$TOKEN>\"'"
    )
    assert own_cli.shell(script).out == b"<caf\xe9-secret>\n"
    assert own_cli.log("it") == b"<***>\n"


def test_secrets_are_masked_in_an_old_locale(own_cli: CommandLine, server: RealServer) -> None:
    """Where Python reads variables and arguments as ASCII, and a log as UTF-8."""
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TOKEN": SECRET}
    own_cli.environment = {**own_cli.environment, **old}
    done = own_cli("run", "--secret-env", "TOKEN", "--name", CONTROL, "--", "sh", "-c", f"echo '{SECRET}'")
    assert (done.code, done.text) == (0, f"{SECRET}\n")
    assert own_cli.log(done.job_id).decode() == "***\n"
    assert_nothing_leaked(server)


def test_white_space_around_a_secret_is_not_part_of_it(own_cli: CommandLine) -> None:
    """A variable read from a file often ends with a line end, which the command then leaves out."""
    own_cli.environment = {**own_cli.environment, "TOKEN": f"  {SECRET}\n"}
    done = own_cli("run", "--secret-env", "TOKEN", "--", "sh", "-c", 'echo "<"$TOKEN">"; echo "<$TOKEN>"')
    assert own_cli.log(done.job_id).decode() == "< *** >\n<  ***\n>\n"


def test_masked_output_ends_its_line(own_cli: CommandLine) -> None:
    """The line that says why a job was cancelled begins a line, behind a secret too."""
    own_cli.environment = {**own_cli.environment, "TOKEN": f"{SECRET}\n"}
    script = 'printf "%s" "$TOKEN"; kill -TERM $PPID; sleep 1000'
    done = own_cli("run", "--secret-env", "TOKEN", "--", "sh", "-c", script)
    assert own_cli.log(done.job_id).decode() == "***\n[cancelled: stopped by SIGTERM]\n"


def test_a_rescue_file_has_masks(own_cli: CommandLine, server: RealServer, tmp_path: Path) -> None:
    """What couldn't be stored lies on this machine, and without secrets as well."""
    os.mkfifo(tmp_path / "gate")
    own_cli.environment = {**own_cli.environment, **VARIABLES}
    script = f'echo one; read line < {tmp_path}/gate; echo "<$TOKEN>"; printf hunt'
    running = own_cli.start("run", "--id", "it", "--secret-env", "TOKEN", "--", "sh", "-c", script)
    running.wait_for_output(b"one\n")
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        key = f"{{{own_cli.environment['CI_EVENTSTORE_PREFIX']}:0}}:job:it"
        client.rename(key, f"{key}:hidden")
    (tmp_path / "gate").write_text("go\n")
    done = running.end()
    assert (done.code, done.text) == (4, f"one\n<{SECRET}>\nhunt")
    [rescued] = Path(own_cli.environment["TMPDIR"]).iterdir()
    assert rescued.read_text() in ("<***>\nhunt", "one\n<***>\nhunt")


#: Prints on both outputs; the secret itself is first heard of there.
NAMES_A_SECRET = """
printf 'before\\n::add-'; sleep 0.3; printf 'mask::made-%s\\r\\n' up-1 >&2
printf '<made-%s>\\n' up-1; printf '<made-%s>\\n' up-1 >&2; printf 'made-%s' up-1 | base64
echo ::add-mask::abc; printf '::add-mask::%s-%s' last one
"""


def test_a_command_names_a_secret(own_cli: CommandLine, server: RealServer) -> None:
    """`::add-mask::` is heard on either output, masks on both, and is never stored; in `run` and in a controller."""
    stored = b"before\n<***>\n<***>\n***\n[::add-mask:: masks nothing: it has fewer than 4 characters]\n"
    done = own_cli("run", "--id", "it", "--", "sh", "-c", NAMES_A_SECRET)
    assert b"::add-mask::" in done.out
    controller = own_cli.start("controller", "--name", "masks", "--lease", "1s")
    controller.wait_for_error("controller masks takes jobs")
    own_cli("submit", "--id", "other", "--", "sh", "-c", NAMES_A_SECRET)
    assert own_cli.log("other") == own_cli.log("it") == stored
    controller.send(signal.SIGTERM)
    assert controller.end().code == 0
    for text in ("made-up-1", "last-one"):
        assert found_in(server, text) == []


def test_a_secret_in_another_spelling(own_cli: CommandLine, server: RealServer) -> None:
    """In the log and in the arguments."""
    own_cli.environment = {**own_cli.environment, "TOKEN": SECRET}
    script = 'printf %s "ada:$TOKEN" | base64; set -x; : "$TOKEN !"'
    encoded = base64.b64encode(f"ada:{SECRET}".encode()).decode()
    done = own_cli("run", "--id", "it", "--secret-env", "TOKEN", "--", "sh", "-c", script, "-", f"Basic {encoded}")
    assert encoded in done.text
    left = own_cli.log("it").decode()
    assert left.count("***") == 2
    assert json.loads(own_cli("jobs", "show", "it", "--json").out)["command"][-1].startswith("Basic YWRhO")
    for start in range(8, len(encoded) - 8):
        assert found_in(server, encoded[start : start + 8]) == []


UNUSABLE = {
    "run --secret-env PIN -- touch ran": "the environment variable PIN has fewer than 4 characters",
    "controller --secret-env PIN": "the environment variable PIN has fewer than 4 characters",
    "controller --secret-env TOKEN --name my-hunter2": "--name or --queue holds a secret, and can't be masked",
    "run --secret-env NO_SUCH -- touch ran": "the environment variable NO_SUCH isn't set",
    "run --secret-env EMPTY -- touch ran": "the environment variable EMPTY is empty",
    "run --secret-env BLANK -- touch ran": "the environment variable BLANK holds only white space",
    "run --secret-env TOKEN --secret-env NO_SUCH -- touch ran": "the environment variable NO_SUCH isn't set",
    "run --secret-env TOKEN --id my-hunter2-job -- touch ran": "--id holds a secret, and can't be masked",
}


@pytest.mark.parametrize(("arguments", "message"), UNUSABLE.items(), ids=UNUSABLE)
def test_what_cannot_be_masked_is_refused(cli: CommandLine, tmp_path: Path, arguments: str, message: str) -> None:
    """No job is created and nothing is started; what is wrong is said, without the secret."""
    variables = {"TOKEN": "hunter2", "EMPTY": "", "BLANK": " \n\t", "PIN": "007"}
    words = [str(tmp_path / word) if word == "ran" else word for word in shlex.split(arguments)]
    done = cli(*words, environment=variables)
    assert (done.code, done.out) == (2, b"")
    assert message in done.err.splitlines()[-1]
    assert "hunter2" not in done.err
    assert "007" not in done.err
    assert not (tmp_path / "ran").exists()
    assert json.loads(cli("jobs", "list", "--json").out) == []


def test_an_unset_variable_starts_no_store(cli: CommandLine, tmp_path: Path) -> None:
    """The variables are looked at first of all."""
    url = f"embedded://{tmp_path}/store"
    assert cli("--url", url, "run", "--secret-env", "NO_SUCH", "--", "true").code == 2
    assert not (tmp_path / "store").exists()
