"""A running command is stopped, with all that it started: by Ctrl-C, by signals, by a cancel from elsewhere."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.acceptance.command_line import PROGRAM, CommandLine, Running, is_alive, python, until_signal, wait_for_file
from tests.servers import wait_until

#: A second signal ends the program within 5 seconds; the rest is the machine's, which may be busy.
SECOND_SIGNAL_SECONDS = 5.0 + 1.5
#: Prints an unfinished line with its own id and its child's, which ignores Ctrl-C as a shell's background jobs do.
TWO_PROCESSES = """
import os, signal, subprocess
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"])
signal.signal(signal.SIGINT, signal.SIG_DFL)
print(f"working {os.getpid()} {child.pid}", end="", flush=True)
signal.pause()
"""
#: Tells when it ignores every signal that can be ignored.
STUBBORN = """
import os, signal
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("ready", os.getpid(), flush=True)
while True:
    signal.pause()
"""


def start_two_processes(cli: CommandLine) -> tuple[Running, list[int]]:
    """Start a job whose command has a child; return it when both run, with their process ids."""
    running = cli.start("run", "--id", "it", "--", *python(TWO_PROCESSES))
    running.wait_for_output(b"working")
    return running, [int(word) for word in running.shown.split()[1:]]


def status(cli: CommandLine, job_id: str = "it") -> tuple[str, bool | None]:
    """Return a job's status and result."""
    job = cli.job(job_id)
    return str(job.status), job.success


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_stops_the_command(cli: CommandLine, number: signal.Signals) -> None:
    """Everything in the command's process group ends, the job is cancelled, and its log says why in its last line."""
    running, processes = start_two_processes(cli)
    running.send(number)
    done = running.end()
    assert done.code == 128 + number
    assert [is_alive(process) for process in processes] == [False, False]
    assert status(cli) == ("cancelled", False)
    log = cli("tail", "it")
    assert (log.code, log.out) == (1, done.out + f"\n[cancelled: stopped by {number.name}]\n".encode())


def test_a_cancel_from_elsewhere_stops_the_command(cli: CommandLine) -> None:
    """`jobs cancel` in another process ends the command and its children."""
    running, processes = start_two_processes(cli)
    cancelled = cli("jobs", "cancel", "it", "--reason", "wrong branch")
    assert (cancelled.code, cancelled.text.startswith("job it is ")) == (0, True)
    done = running.end()
    assert (done.code, "is to be cancelled" in done.err) == (143, True)
    assert [is_alive(process) for process in processes] == [False, False]
    assert cli.log("it") == done.out + b"\n[cancelled: wrong branch]\n"


def test_what_the_command_prints_while_it_stops_is_stored(cli: CommandLine) -> None:
    """The rest of the output is in the log, before the line that says it was cancelled."""
    running = cli.start("run", "--id", "it", "--", *until_signal("SIGINT", "ready", "cleaning up"))
    running.wait_for_output(b"ready\n")
    running.send(signal.SIGINT)
    done = running.end()
    assert (done.code, done.out) == (130, b"ready\ncleaning up\n")
    assert cli.log("it").decode() == "ready\ncleaning up\n[cancelled: stopped by SIGINT]\n"


def test_the_last_output_of_a_cancelled_job_comes_before_its_end(cli: CommandLine) -> None:
    """What the command still prints after a cancel from elsewhere is in the log, before the line that says so."""
    running = cli.start("run", "--id", "it", "--", *until_signal("SIGTERM", "ready", "cleaning up"))
    running.wait_for_output(b"ready\n")
    cli("jobs", "cancel", "it")
    assert running.end().code == 143
    assert cli.log("it").decode() == "ready\ncleaning up\n[cancelled]\n"


def test_a_second_signal_kills(cli: CommandLine) -> None:
    """A command that ignores the first Ctrl-C is killed by the second."""
    running = cli.start("run", "--id", "it", "--", *python(STUBBORN))
    running.wait_for_output(b"\n")
    running.send(signal.SIGINT)
    running.wait_for_error("SIGINT: stopping the command; a second signal kills it")
    running.send(signal.SIGINT)
    done = running.end()
    assert done.code == 137
    assert not is_alive(int(done.out.split()[1]))
    assert status(cli) == ("cancelled", False)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_ends_the_wait_for_more_output(cli: CommandLine, tmp_path: Path, times: int) -> None:
    """The command has ended by then, so the job ends with its result; within seconds, whoever goes on printing."""
    script = f"(while :; do echo more; sleep 0.2; done) & echo $! > {tmp_path}/pid; exit 3"
    running = cli.start("run", "--id", "it", "--", "sh", "-c", script)
    process_id = int(wait_for_file(tmp_path / "pid"))
    running.wait_for_output(b"more\nmore\nmore\n")
    for _ in range(times):
        running.send(signal.SIGTERM)
    began = time.monotonic()
    done = running.end()
    assert time.monotonic() - began < SECOND_SIGNAL_SECONDS
    os.kill(process_id, signal.SIGKILL)
    assert (done.code, status(cli)) == (3, ("completed", False))
    assert "the job was to end: its output is cut off here" in cli.log("it").decode()


def test_ctrl_c_in_a_terminal_stops_the_command(cli: CommandLine) -> None:
    """Typed at a terminal, it reaches `run`, which passes it on to the command in its own process group."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", PROGRAM, "run", "--id", "it", "--", *python(TWO_PROCESSES)],
        env=cli.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    cli.started.append(process)
    shown = b""
    while b"working" not in shown:
        shown += os.read(ours, 1000)
    os.write(ours, b"\x03")
    assert process.wait(30) == 130
    os.close(ours)
    assert cli.log("it").decode().splitlines()[1] == "[cancelled: stopped by SIGINT]"


def test_a_signal_that_was_ignored_stays_ignored(cli: CommandLine, tmp_path: Path) -> None:
    """Under `nohup` the end of a terminal doesn't stop the command."""
    os.mkfifo(tmp_path / "go")
    script = 'trap "" HUP; exec ci-eventstore run --id it -- sh -c "echo ready; read line < $1; echo done"'
    running = Running(
        subprocess.Popen(
            ["bash", "-c", script, "bash", tmp_path / "go"],
            env={**cli.environment, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )
    cli.started.append(running.process)
    running.wait_for_output(b"ready\n")
    running.send(signal.SIGHUP)
    (tmp_path / "go").write_text("go\n")
    done = running.end()
    assert (done.code, done.out) == (0, b"ready\ndone\n")


def test_a_reader_that_is_stuck_does_not_keep_a_stopped_command(cli: CommandLine, tmp_path: Path) -> None:
    """When nobody reads the terminal's side, a signal still ends the job, and all that was printed is stored."""
    script = f"seq 20000; echo end; echo $$ > {tmp_path}/printed; sleep 1000"
    running = cli.start("run", "--id", "it", "--", "sh", "-c", script)
    wait_for_file(tmp_path / "printed")
    running.send(signal.SIGTERM)
    assert running.process.wait(30) == 143
    expected = "".join(f"{number}\n" for number in range(1, 20_001)) + "end\n[cancelled: stopped by SIGTERM]\n"
    assert cli.log("it").decode() == expected


@pytest.mark.slow
def test_a_reader_that_is_stuck_does_not_outlast_a_second_signal(cli: CommandLine, tmp_path: Path) -> None:
    """When the command has ended by itself, two signals end the wait for whoever doesn't read what it printed."""
    running = cli.start("run", "--id", "it", "--", "sh", "-c", f"seq 20000; echo $$ > {tmp_path}/printed")
    process_id = int(wait_for_file(tmp_path / "printed"))
    wait_until(lambda: not is_alive(process_id), "the end of the command")
    for _ in range(2):
        running.send(signal.SIGTERM)
    assert running.process.wait(SECOND_SIGNAL_SECONDS) == 0
    assert status(cli) == ("completed", True)
    assert cli.log("it").decode() == "".join(f"{number}\n" for number in range(1, 20_001))


def test_the_first_end_of_a_job_wins(cli: CommandLine, tmp_path: Path) -> None:
    """A command that succeeds just after its job was cancelled leaves it cancelled, and `run` doesn't claim success."""
    os.mkfifo(tmp_path / "go")
    running = cli.start("run", "--id", "it", "--", "sh", "-c", f"trap '' TERM; echo ready; read line < {tmp_path}/go")
    running.wait_for_output(b"ready\n")
    cli("jobs", "cancel", "it")
    (tmp_path / "go").write_text("go\n")
    assert running.end().code != 0
    assert status(cli) == ("cancelled", False)
