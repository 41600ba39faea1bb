"""`ci-eventstore run`: what a command prints is what the terminal shows and what the store keeps."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, python

OUTPUTS = {
    "text": b"one\ntwo\n",
    "empty": b"",
    "no newline at the end": b"one\ntwo",
    "colours": b"\x1b[31mred\x1b[0m \x1b[1;32mgreen\x1b[0m\n",
    "carriage returns": b"10%\r20%\r\n30%\r",
    "nul": b"a\x00b\x00\n\x00",
    "umlauts": "Zähler: 7 €, 日本, 🎉\n".encode(),
    "invalid": bytes(range(256)) * 20 + b"\xe2\x82",
    "surrogates": b"\xed\xa0\x80\xed\xb0\x80\xf0\x9f\x8e",
    "a line of a megabyte": b"x" * 1_000_000 + b"\n",
    "many short lines": b"".join(b"%d\n" % number for number in range(200_000)),
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_output_passes_through_byte_for_byte(cli: CommandLine, tmp_path: Path, output: bytes) -> None:
    """The terminal gets what the command prints, and so does who reads the log."""
    (tmp_path / "output").write_bytes(output)
    done = cli("run", "--", "cat", tmp_path / "output")
    assert (done.code, done.out == output) == (0, True)
    log = cli("tail", done.job_id)
    assert (log.code, log.out == output, log.err) == (0, True, "")


def test_output_keeps_its_order_over_both_streams(cli: CommandLine) -> None:
    """Standard output and error come together in the order in which they were written."""
    script = "for i in $(seq 300); do echo out $i; echo err $i >&2; done"
    done = cli("run", "--", "sh", "-c", script)
    assert done.text == "".join(f"out {i}\nerr {i}\n" for i in range(1, 301))
    assert cli("tail", done.job_id).out == done.out


def test_a_character_written_in_two_halves_stays_one(cli: CommandLine) -> None:
    """Between the halves of a character no event ends, so its text has no broken character."""
    program = "import os, select; os.write(1, b'\\xe2\\x82'); select.select([], [], [], 0.3); os.write(1, b'\\xac')"
    done = cli("run", "--", *python(program))
    assert (done.out, cli("tail", done.job_id).out) == ("€".encode(), "€".encode())


def test_a_pseudo_terminal_changes_no_byte(cli: CommandLine) -> None:
    """With --pty the command sees a terminal on its output, and its output is stored as it was written."""
    program = (
        "import os; print(os.isatty(1), os.isatty(2), open('/dev/tty').isatty()); os.write(2, b'a\\r\\nb\\tc\\x00')"
    )
    done = cli("run", "--pty", "--", *python(program))
    assert (done.code, done.out) == (0, b"True True True\na\r\nb\tc\x00")
    assert cli.log(done.job_id) == done.out


def test_a_pseudo_terminal_loses_nothing_at_the_end(cli: CommandLine) -> None:
    """What a command prints just before it ends is there."""
    done = cli("run", "--pty", "--", *python("for number in range(20000): print(number)"))
    assert done.out == b"".join(b"%d\n" % number for number in range(20000))


def test_the_job_id_comes_first(cli: CommandLine) -> None:
    """Standard error begins with the id, and holds no more for a job without trouble."""
    done = cli("run", "--id", "build-42", "--", "true")
    assert done.err == "ci-eventstore: job build-42\n"


def test_the_job_says_what_ran(cli: CommandLine) -> None:
    """Name, command, user, times and result are in the job."""
    cli("user", "create", "Ada", "ada@example.com", "--id", "ada")
    done = cli("run", "--name", "nightly", "--user", "ADA@example.com", "--", "sh", "-c", "exit 3")
    job = json.loads(cli("jobs", "show", done.job_id, "--json").out)
    assert job.pop("start_time") <= job.pop("end_time")
    assert job.pop("created_at")
    assert job.pop("incarnation")
    assert job == {
        "job_id": done.job_id,
        "status": "completed",
        "success": False,
        "user_id": "ada",
        "name": "nightly",
        "queue": "default",
        "command": ["sh", "-c", "exit 3"],
        "zip_file_path": None,
        "container_id": None,
        "exit_code": 3,
        "signal": None,
        "attempts": 1,
        "log_truncated": False,
        "log_deleted": False,
        "kept": False,
        "retention": None,
        "root": None,
    }


ENDINGS = {
    "true": (0, "completed"),
    "sh -c 'exit 7'": (7, "completed"),
    "sh -c 'kill -9 $$'": (137, "completed"),
    "no-such-command-anywhere": (127, "failed"),
    "./no-such-file": (127, "failed"),
    "/dev/null": (126, "failed"),
    "/": (126, "failed"),
}


@pytest.mark.parametrize(("command", "ending"), ENDINGS.items(), ids=ENDINGS)
def test_the_exit_code_is_the_commands(cli: CommandLine, command: str, ending: tuple[int, str]) -> None:
    """`run` exits as the command did, or as a shell does that can't start it."""
    code, status = ending
    done = cli("run", "--", *shlex.split(command))
    job = json.loads(cli("jobs", "show", done.job_id, "--json").out)
    assert (done.code, job["status"], job["success"]) == (code, status, code == 0)


def test_the_log_says_why_a_command_was_not_started(cli: CommandLine) -> None:
    """The reason stands on standard error and in the job's log."""
    done = cli("run", "--", "no-such-command-anywhere")
    reason = "'no-such-command-anywhere' can't be started: No such file or directory"
    assert done.err.splitlines()[1:] == [f"ci-eventstore: {reason}"]
    log = cli("tail", done.job_id)
    assert (log.code, log.text) == (1, f"[{reason}]\n")


def test_a_script_without_its_interpreter_is_not_executable(cli: CommandLine, tmp_path: Path) -> None:
    """The file is there, so the code is 126 and not 127."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert cli("run", "--", script).code == 126


def test_the_command_reads_standard_input(cli: CommandLine) -> None:
    """What is piped into `run` is the command's."""
    assert cli("run", "--", "tr", "a-z", "A-Z", stdin=b"hello\n").out == b"HELLO\n"


def test_options_behind_the_command_are_its_own(cli: CommandLine) -> None:
    """Without the double dash, too."""
    assert cli("run", "echo", "--name", "x", "-n").out == b"--name x -n\n"


def test_arguments_that_are_no_unicode_reach_the_command(cli: CommandLine) -> None:
    """The command gets its bytes; the job shows a replacement character."""
    done = cli.shell("ci-eventstore run -- printf '%s' $'caf\\xe9'")
    job = json.loads(cli("jobs", "show", done.job_id, "--json").out)
    assert (done.out, job["command"][2]) == (b"caf\xe9", "caf�")


def test_a_reader_that_leaves_does_not_stop_the_command(cli: CommandLine) -> None:
    """`run … | head` shows the beginning; the command ends as usual, and its whole log is stored."""
    script = "ci-eventstore run --id whole -- seq 50000 | head -n 1; echo ${PIPESTATUS[0]}"
    done = cli.shell(script)
    assert (done.text, done.err) == ("1\n0\n", "ci-eventstore: job whole\n")
    assert cli.log("whole") == b"".join(b"%d\n" % number for number in range(1, 50_001))


def test_standard_streams_may_be_missing(cli: CommandLine) -> None:
    """A program that was started without them works as with /dev/null."""
    done = cli.shell("ci-eventstore run --id it -- sh -c 'cat; echo out; echo err >&2' <&- >&- 2>&-; echo $?")
    assert (done.text, done.err) == ("0\n", "")
    assert cli.log("it").decode() == "out\nerr\n"


def test_a_full_disk_does_not_stop_the_command(cli: CommandLine) -> None:
    """What can't be shown is stored all the same."""
    done = cli.shell("ci-eventstore run --id it -- seq 3 > /dev/full")
    message = "ci-eventstore: the output can't be shown any more, but is stored: No space left on device"
    assert (done.code, done.err.splitlines()[1:]) == (0, [message])
    assert cli.log("it").decode() == "1\n2\n3\n"


@pytest.mark.slow
def test_something_left_behind_does_not_keep_run_waiting(cli: CommandLine, tmp_path: Path) -> None:
    """A process in the background that keeps the output open is left alone, and named, here and in the log."""
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; printf done"
    done = cli("run", "--id", "it", "--", "sh", "-c", script)
    process_id = (tmp_path / "pid").read_text().strip()
    cli.shell('kill "$1"', process_id)
    assert (done.code, done.out) == (0, b"done")
    end = f"its output is cut off here; what these print from here on isn't stored: sleep ({process_id})"
    line = f"the command has ended, and nothing came for 2s: {end}"
    assert line in done.err
    assert cli.log("it").decode() == f"done\n[{line}]\n"


@pytest.mark.slow
def test_a_flood_from_something_left_behind_ends(cli: CommandLine, tmp_path: Path) -> None:
    """A process in the background that prints without end doesn't keep `run` going."""
    done = cli("run", "--", "sh", "-c", f"(while :; do echo y; done) & echo $! > {tmp_path}/pid; sleep 0.1; exit 5")
    cli.shell('kill "$1" || true', (tmp_path / "pid").read_text().strip())
    assert done.code == 5
    log = cli.log(done.job_id)
    assert log.startswith(done.out)
    said, end = log.removeprefix(done.out).lstrip(b"\n").splitlines()
    assert said.startswith(b"[the command has ended, and its output went on for 30s: ")
    assert end == b"[exit code 5]"


def test_two_runs_share_the_embedded_server(cli: CommandLine) -> None:
    """Many processes may run jobs at the same time."""
    running = [cli.start("run", "--id", f"job-{n}", "--", sys.executable, "-c", f"print({n})") for n in range(3)]
    assert [run.end().out for run in running] == [b"0\n", b"1\n", b"2\n"]
    assert [cli.log(f"job-{n}") for n in range(3)] == [b"0\n", b"1\n", b"2\n"]
