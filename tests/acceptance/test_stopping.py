"""A running command is stopped, with all that it started: by Ctrl-C, by signals, by a cancel from elsewhere."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.command_line import PROGRAM, CommandLine, Running, is_alive, until_signal, wait_for_file

#: Prints an unfinished line; its grandchild ignores what a background process of a shell ignores.
TWO_PROCESSES = (
    'sh -c "echo \\$\\$ > {0}/grandchild; sleep 1000; true" & printf working; echo $$ > {0}/child; sleep 1000'
)


def start_two_processes(cli: CommandLine, folder: Path) -> tuple[Running, list[int]]:
    """Start a job whose command has a child; return it when both run, with their process ids."""
    running = cli.start("run", "--id", "it", "--", "sh", "-c", TWO_PROCESSES.format(folder))
    running.job_id()
    running.wait_for_output(b"working")
    return running, [int(wait_for_file(folder / name)) for name in ("child", "grandchild")]


def status(cli: CommandLine, job_id: str = "it") -> tuple[str, bool | None]:
    """Return a job's status and result."""
    job = json.loads(cli("jobs", "show", job_id, "--json").out)
    return job["status"], job["success"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_stops_the_command(cli: CommandLine, tmp_path: Path, number: signal.Signals) -> None:
    """Everything in the command's process group ends, the job is cancelled, and its log says why in its last line."""
    running, processes = start_two_processes(cli, tmp_path)
    running.send(number)
    done = running.end()
    assert done.code == 128 + number
    assert [is_alive(process) for process in processes] == [False, False]
    assert status(cli) == ("cancelled", False)
    log = cli("tail", "it")
    assert (log.code, log.text) == (1, f"working\n[cancelled: stopped by {number.name}]\n")


def test_a_cancel_from_elsewhere_stops_the_command(cli: CommandLine, tmp_path: Path) -> None:
    """`jobs cancel` in another process ends the command and its children."""
    running, processes = start_two_processes(cli, tmp_path)
    cancelled = cli("jobs", "cancel", "it", "--reason", "wrong branch")
    assert (cancelled.code, cancelled.text) == (0, "job it is cancelled\n")
    done = running.end()
    assert (done.code, "ended by someone else" in done.err) == (143, True)
    assert [is_alive(process) for process in processes] == [False, False]
    assert cli("tail", "it").text == "working[cancelled: wrong branch]\n"


def test_what_the_command_prints_while_it_stops_is_stored(cli: CommandLine) -> None:
    """The rest of the output is in the log, before the line that says it was cancelled."""
    running = cli.start("run", "--id", "it", "--", *until_signal("SIGINT", "ready", "cleaning up"))
    running.wait_for_output(b"ready\n")
    running.send(signal.SIGINT)
    done = running.end()
    assert (done.code, done.out) == (130, b"ready\ncleaning up\n")
    assert cli("tail", "it").text == "ready\ncleaning up\n[cancelled: stopped by SIGINT]\n"


def test_late_output_of_a_cancelled_job_is_stored(cli: CommandLine) -> None:
    """What the command still prints after a cancel from elsewhere follows behind the job's end, and `tail` shows it."""
    running = cli.start("run", "--id", "it", "--", *until_signal("SIGTERM", "ready", "cleaning up"))
    running.wait_for_output(b"ready\n")
    cli("jobs", "cancel", "it")
    assert running.end().code == 143
    assert cli("tail", "it").text == "ready\n[cancelled]\ncleaning up\n"


def test_a_second_signal_kills(cli: CommandLine, tmp_path: Path) -> None:
    """A command that ignores the first Ctrl-C is killed by the second."""
    script = f"trap '' INT TERM; echo $$ > {tmp_path}/pid; echo ready; while true; do sleep 0.05; done"
    running = cli.start("run", "--id", "it", "--", "sh", "-c", script)
    running.wait_for_output(b"ready\n")
    running.send(signal.SIGINT)
    stderr = running.process.stderr
    assert stderr is not None
    assert b"SIGINT: stopping the command; once more kills it" in stderr.readline() + stderr.readline()
    running.send(signal.SIGINT)
    assert running.end().code == 137
    assert not is_alive(int(wait_for_file(tmp_path / "pid")))
    assert status(cli) == ("cancelled", False)


def test_ctrl_c_in_a_terminal_stops_the_command(cli: CommandLine) -> None:
    """Typed at a terminal, it reaches `run`, which passes it on to the command in its own process group."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", PROGRAM, "run", "--id", "it", "--", "sh", "-c", "echo ready; sleep 1000"],
        env=cli.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    cli.started.append(process)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(ours, 1000)
    os.write(ours, b"\x03")
    assert process.wait(30) == 130
    os.close(ours)
    assert cli("tail", "it").text == "ready\n[cancelled: stopped by SIGINT]\n"


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
    assert cli("tail", "it").text == expected


def test_the_first_end_of_a_job_wins(cli: CommandLine, tmp_path: Path) -> None:
    """A command that succeeds just after its job was cancelled leaves it cancelled, and `run` doesn't claim success."""
    os.mkfifo(tmp_path / "go")
    running = cli.start("run", "--id", "it", "--", "sh", "-c", f"trap '' TERM; echo ready; read line < {tmp_path}/go")
    running.wait_for_output(b"ready\n")
    cli("jobs", "cancel", "it")
    (tmp_path / "go").write_text("go\n")
    assert running.end().code != 0
    assert status(cli) == ("cancelled", False)
