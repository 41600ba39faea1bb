"""`submit`, `controller`, `queues`: jobs in queues and the processes that run them, with real controllers."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, Running, is_alive, python, wait_for_file
from tests.servers import wait_until

#: Tells its own id and its child's, prints an unfinished line, and waits; both end at SIGTERM.
TWO_PROCESSES = "sleep 1000 & echo working; printf unfinished; echo $$ $! > {}; wait"
#: The same, and neither ends at SIGTERM.
STUBBORN = "trap '' TERM; sleep 1000 & echo working; echo $$ $! > {}; wait"


@pytest.fixture
def folder(cli: CommandLine, tmp_path: Path) -> Iterator[Path]:
    """A folder for everything that the programs put somewhere; no controller leaves anything behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    cli.environment = {**cli.environment, "XDG_DATA_HOME": str(tmp_path / "data"), "TMPDIR": str(temporary)}
    yield tmp_path
    assert list(temporary.iterdir()) == []


def start_controller(cli: CommandLine, name: str, *options: str) -> Running:
    """Start a controller with a short lease, and wait until it takes jobs."""
    running = cli.start("controller", "--name", name, "--lease", "1s", *options)
    running.wait_for_error(f"controller {name} takes jobs from")
    return running


def stop(running: Running) -> str:
    """Tell a controller to end, and return what it has told."""
    running.send(signal.SIGTERM)
    ended = running.end()
    assert ended.code == 0, ended.err
    return ended.err


def submit(cli: CommandLine, job_id: str, *arguments: str | Path) -> None:
    """Put a job into a queue."""
    done = cli("submit", "--id", job_id, *arguments)
    assert (done.code, done.text) == (0, f"{job_id}\n"), done.err


def state(cli: CommandLine, job_id: str) -> tuple[str, bool | None]:
    """Return a job's status and result."""
    job = cli.job(job_id)
    return str(job.status), job.success


def log(cli: CommandLine, job_id: str) -> str:
    """Wait for the end of a job, and return its log."""
    return cli.log(job_id).decode()


def wait_for_end(processes: list[int]) -> None:
    """Wait until none of some processes runs."""
    wait_until(lambda: not any(map(is_alive, processes)), f"the end of {processes}")


def start_long_job(cli: CommandLine, folder: Path, script: str = TWO_PROCESSES, *options: str) -> list[int]:
    """Submit a job that doesn't end, wait until its log shows that it runs, and return its processes."""
    submit(cli, "long", *options, "--", "sh", "-c", script.format(folder / "processes"))
    wait_until(lambda: b"working\n" in cli.log_so_far("long"), "the job's first line")
    return [int(word) for word in wait_for_file(folder / "processes").split()]


@pytest.mark.slow
def test_jobs_of_two_controllers(cli: CommandLine, folder: Path) -> None:
    """Each job is run once, whoever takes it; with its result, its log, its id, as is told."""
    names = [f"job-{number}" for number in range(6)]
    controllers = [start_controller(cli, name, "--concurrency", "2") for name in ("left", "right")]
    for name in names:
        submit(cli, name, "--", "sh", "-c", "echo $CI_EVENTSTORE_JOB_ID; pwd; exit ${CI_EVENTSTORE_JOB_ID#job-}")
    logs = [log(cli, name) for name in names]
    for number, (name, text) in enumerate(zip(names, logs, strict=True)):
        first, place, *rest = text.splitlines()
        assert (first, rest) == (name, [f"[exit code {number}]"] if number else [])
        assert place.startswith(f"{folder}/temporary/")
        assert state(cli, name) == ("completed", number == 0)
    told = "".join(stop(controller) for controller in controllers)
    assert [told.count(f"job {name} started\n") for name in names] == [1] * 6
    assert "job job-3 ended: exit code 3\n" in told


@pytest.mark.slow
def test_a_killed_controllers_job_is_taken_over(cli: CommandLine, folder: Path) -> None:
    """After `kill -9` its commands are gone, and another controller runs the job again and says so in the log."""
    script = f"if [ -e {folder}/again ]; then echo again; else touch {folder}/again; {TWO_PROCESSES}; fi"
    doomed = start_controller(cli, "doomed")
    processes = start_long_job(cli, folder, script.replace("printf unfinished; ", ""))
    other = start_controller(cli, "other")
    doomed.process.kill()
    assert log(cli, "long") == "working\n[attempt 2: controller doomed was lost]\nagain\n"
    wait_for_end(processes)
    assert state(cli, "long") == ("completed", True)
    told = stop(other)
    assert "job long started, attempt 2\n" in told
    # What the killed one left goes away with the next one that starts.
    stop(start_controller(cli, "next"))


def test_a_cancel_stops_the_whole_group(cli: CommandLine, folder: Path) -> None:
    """The job ends as cancelled, its command and that one's child are gone, and the reason begins a line."""
    controller = start_controller(cli, "it")
    processes = start_long_job(cli, folder)
    done = cli("jobs", "cancel", "long", "--reason", "wrong branch")
    # The controller may be quicker than the question whether it was.
    assert done.text in {"job long is being cancelled by the process that runs it\n", "job long is cancelled\n"}
    assert log(cli, "long") == "working\nunfinished\n[cancelled: wrong branch]\n"
    wait_for_end(processes)
    assert state(cli, "long") == ("cancelled", False)
    assert "job long ended: cancelled\n" in stop(controller)


def test_a_job_is_stopped_at_its_time_limit(cli: CommandLine, folder: Path) -> None:
    """It fails, and its log says why."""
    controller = start_controller(cli, "it", "--time-limit", "1s")
    processes = start_long_job(cli, folder)
    assert log(cli, "long") == "working\nunfinished\n[stopped after 1s, its time limit]\n"
    wait_for_end(processes)
    assert state(cli, "long") == ("failed", False)
    stop(controller)


def test_a_signal_gives_jobs_back(cli: CommandLine, folder: Path) -> None:
    """After the time of grace, with the command stopped; the next controller runs the job anew."""
    controller = start_controller(cli, "it", "--grace", "0")
    processes = start_long_job(cli, folder)
    assert "job long ended: given back\n" in stop(controller)
    assert not any(map(is_alive, processes))
    assert state(cli, "long") == ("queued", None)
    assert cli("tail", "long", "--no-follow").text == "working\nunfinished\n"
    (folder / "processes").unlink()
    controller = start_controller(cli, "other")
    wait_for_file(folder / "processes")
    cli("jobs", "cancel", "long")
    assert log(cli, "long").startswith("working\nunfinished\n[begun again: it was given back]\nworking\nunfinished\n")
    stop(controller)


def test_a_second_signal_gives_back_at_once(cli: CommandLine, folder: Path) -> None:
    """However long the grace is, and though the command doesn't want to end."""
    controller = start_controller(cli, "it", "--grace", "1h")
    processes = start_long_job(cli, folder, STUBBORN)
    controller.send(signal.SIGINT)
    controller.wait_for_error("SIGINT: no more jobs are taken; running ones have 1h")
    submit(cli, "later", "--", "true")
    stop(controller)
    assert not any(map(is_alive, processes))
    assert (state(cli, "long"), state(cli, "later")) == (("queued", None), ("queued", None))


def test_running_jobs_may_end_within_the_grace(cli: CommandLine, folder: Path) -> None:
    """A controller that was told to end waits for its command."""
    os.mkfifo(folder / "go")
    controller = start_controller(cli, "it")
    submit(cli, "it", "--", "sh", "-c", f"echo x > {folder}/started; read line < {folder}/go; echo $line")
    wait_for_file(folder / "started")
    controller.send(signal.SIGTERM)
    controller.wait_for_error("no more jobs")
    (folder / "go").write_text("done\n")
    assert controller.end().code == 0
    assert log(cli, "it") == "done\n"
    assert state(cli, "it") == ("completed", True)


def test_secrets_are_masked(cli: CommandLine, folder: Path) -> None:
    """The command has the variable; its log, however it is split, has not."""
    cli.environment = {**cli.environment, "TOKEN": "hunter2-0815"}
    controller = start_controller(cli, "it", "--secret-env", "TOKEN", "--pass-env", "TOKEN")
    submit(
        cli, "it", "--", *python("import os, sys; [os.write(1, c.encode()) for c in os.environ['TOKEN']]; sys.exit(4)")
    )
    assert log(cli, "it") == "***\n[exit code 4]\n"
    stop(controller)


def test_a_controller_says_no_secret(cli: CommandLine, folder: Path) -> None:
    """Neither in the log nor on its own standard error, though `repr` is applied to what can't be started."""
    secret = 'it\'s\\a "secret"-0815'
    cli.environment = {**cli.environment, "TOKEN": secret}
    controller = start_controller(cli, "it", "--secret-env", "TOKEN")
    submit(cli, "it", "--", f"./{secret}")
    assert log(cli, "it") == "['./***' can't be started: No such file or directory]\n"
    said = stop(controller)
    assert "job it ended: './***' can't be started" in said
    assert "secret" not in said


def test_what_a_command_leaves_behind_is_killed(cli: CommandLine, folder: Path) -> None:
    """The job has its command's result, and nothing of it runs on."""
    controller = start_controller(cli, "it")
    submit(cli, "it", "--", "sh", "-c", f"sleep 1000 > /dev/null 2>&1 & echo $! > {folder}/child; echo done")
    assert log(cli, "it") == "done\n"
    wait_for_end([int(wait_for_file(folder / "child"))])
    stop(controller)


ENDS = {
    "kill -SEGV $$": ("completed", "[killed by SIGSEGV]\n"),
    "echo text; kill -KILL $$": ("completed", "text\n[killed by SIGKILL]\n"),
    "printf x; exit 7": ("completed", "x\n[exit code 7]\n"),
}


def test_how_commands_end(cli: CommandLine, folder: Path) -> None:
    """The last line of the log says it; a command that can't be started fails the job."""
    controller = start_controller(cli, "it")
    for number, script in enumerate(ENDS):
        submit(cli, f"j{number}", "--", "sh", "-c", script)
    submit(cli, "missing", "--", "no-such-program")
    for number, (status, text) in enumerate(ENDS.values()):
        assert log(cli, f"j{number}") == text
        assert state(cli, f"j{number}") == (status, False)
    assert log(cli, "missing") == "['no-such-program' can't be started: No such file or directory]\n"
    assert state(cli, "missing") == ("failed", False)
    stop(controller)


def test_what_queues_hold(cli: CommandLine, folder: Path) -> None:
    """What waits, what runs and where, for people and for programs."""
    assert cli("queues").err == "ci-eventstore: there are no queues yet\n"
    controller = start_controller(cli, "it")
    start_long_job(cli, folder)
    submit(cli, "next", "--", "true")
    submit(cli, "other", "--queue", "slow", "--", "true")
    rows = [line.split() for line in cli("queues").text.splitlines()]
    assert rows[0] == ["QUEUE", "WAITING", "OLDEST", "RUNNING", "CONTROLLERS"]
    assert [row[:2] + row[3:] for row in rows[1:]] == [["default", "1", "1", "it", "(1)"], ["slow", "1", "0", "-"]]
    [default, slow] = json.loads(cli("queues", "--json").out)
    oldest = json.loads(cli("jobs", "show", "next", "--json").out)["created_at"]
    assert default == {
        "queue": "default", "waiting": 1, "running": 1, "controllers": {"it": 1}, "oldest_created_at": oldest,
    }  # fmt: skip
    assert (slow["waiting"], slow["controllers"]) == (1, {})
    watching = cli.start("queues", "--watch")
    watching.wait_for_output(b"QUEUE")
    shown = len(watching.shown)
    wait_until(lambda: len(_read(watching)) > shown, "a second picture")
    watching.send(signal.SIGINT)
    assert watching.end().code == 130
    controller.send(signal.SIGTERM)
    controller.wait_for_error("no more jobs")
    assert stop(controller)
    assert {name for queue in json.loads(cli("queues", "--json").out) for name in queue["controllers"]} == set()


def _read(running: Running) -> bytes:
    running.wait_for_output(b"slow")
    assert running.process.stdout is not None
    running.shown += os.read(running.process.stdout.fileno(), 65536)
    return running.shown


@pytest.mark.slow
def test_one_job_and_no_other(cli: CommandLine, folder: Path) -> None:
    """With --once a controller ends after its first job, which may take longer than its grace; the next one stays."""
    os.mkfifo(folder / "go")
    submit(cli, "first", "--", "sh", "-c", f"echo x > {folder}/began; read line < {folder}/go; echo $line")
    controller = start_controller(cli, "it", "--once", "--grace", "0")
    wait_for_file(folder / "began")
    submit(cli, "second", "--", "true")
    (folder / "go").write_text("done\n")
    ended = controller.end()
    assert (ended.code, ended.err.count("started\n")) == (0, 1), ended.err
    assert (log(cli, "first"), state(cli, "first")) == ("done\n", ("completed", True))
    assert state(cli, "second") == ("queued", None)
    refused = cli("controller", "--once", "--concurrency", "2")
    assert (refused.code, "--once is for one job" in refused.err) == (2, True)


@pytest.mark.slow
def test_an_idle_controller_ends_if_it_is_to(cli: CommandLine, folder: Path) -> None:
    """With --exit-when-idle it ends after that time, but not while it has a job, however long that takes."""
    os.mkfifo(folder / "go")
    submit(cli, "long", "--", "sh", "-c", f"echo x > {folder}/began; read line < {folder}/go; echo $line")
    controller = start_controller(cli, "it", "--exit-when-idle", "1s", "--grace", "0")
    wait_for_file(folder / "began")
    other = start_controller(cli, "other", "--queue", "other", "--exit-when-idle", "1s")
    # It is idle for as long as the first one has been since it began its job.
    assert other.end().code == 0
    assert controller.process.poll() is None
    (folder / "go").write_text("done\n")
    ended = controller.end()
    assert (ended.code, "controller it has had no job for 1s\n" in ended.err) == (0, True), ended.err
    assert (log(cli, "long"), state(cli, "long")) == ("done\n", ("completed", True))
