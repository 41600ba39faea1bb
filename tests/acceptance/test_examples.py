"""The controllers in `examples/`: one that polls, beside ours; one that runs jobs in containers."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, Running, is_alive, wait_for_file
from tests.acceptance.test_controller import folder, log, start_controller, state, stop, submit
from tests.servers import wait_until

__all__ = ["folder"]

EXAMPLES = Path(__file__).parents[2] / "examples"
#: A `docker` that "creates containers" as files and runs their commands as processes of this machine.
DOCKER = f"""#!{sys.executable}
import json, os, pathlib, signal, sys
home = pathlib.Path(os.environ["FAKE_DOCKER"])
action, *rest = sys.argv[1:]
with (home / "calls").open("a") as calls:
    calls.write(f"{{action}}\\n")
if action == "create":
    image, *command = [word for word in rest if not word.startswith("--")]
    assert image == "image:1", image
    container = f"container-{{os.getpid()}}"
    (home / container).write_text(json.dumps(command))
    print(container)
elif action == "start":
    (home / f"{{rest[1]}}.pid").write_text(f"{{os.getpid()}}\\n")
    command = json.loads((home / rest[1]).read_text())
    os.execvp(command[0], command)
elif action == "rm":
    (home / rest[1]).unlink(missing_ok=True)
    try:
        os.kill(int((home / f"{{rest[1]}}.pid").read_text()), signal.SIGKILL)
    except (OSError, ValueError):
        pass
"""


def start_example(cli: CommandLine, name: str, *arguments: str) -> Running:
    """Start an example on the store that the program uses, and wait until it says something."""
    store = (cli.environment["CI_EVENTSTORE_URL"], cli.environment["CI_EVENTSTORE_PREFIX"])
    running = cli.start_program(sys.executable, str(EXAMPLES / name), *arguments, *store)
    running.wait_for_error("\n")
    return running


@pytest.mark.slow
def test_poll_controllers_work_beside_ours(cli: CommandLine, folder: Path) -> None:
    """On one queue, each job is run exactly once, and two that wait for each other show that both take part."""
    running = [start_example(cli, "poll_controller.py") for _ in range(2)]
    # The poll controllers have one job each, and so has this one: all three are needed for three at a time.
    controller = start_controller(cli, "ours")
    meeting = "touch {0}/{1}; while ! [ -e {0}/a -a -e {0}/b -a -e {0}/c ]; do sleep 0.02; done; echo met"
    for name in "abc":
        submit(cli, name, "--", "sh", "-c", meeting.format(folder, name))
    assert [log(cli, name) for name in "abc"] == ["met\n"] * 3
    names = [f"j{number}" for number in range(8)]
    for name in names:
        submit(cli, name, "--", "sh", "-c", f"echo {name} >> {folder}/runs; echo once")
    assert [log(cli, name) for name in names] == ["once\n"] * 8
    assert sorted((folder / "runs").read_text().split()) == sorted(names)
    assert {state(cli, name) for name in names} == {("completed", True)}
    containers = [json.loads(cli("jobs", "show", name, "--json").out)["container_id"] for name in "abc"]
    assert sum(container is not None for container in containers) == 2
    stop(controller)
    for poll in running:
        poll.process.kill()


def start_docker_controller(cli: CommandLine, folder: Path) -> Running:
    """Start the example with a docker that is none."""
    (folder / "bin").mkdir()
    (folder / "bin" / "docker").write_text(DOCKER)
    (folder / "bin" / "docker").chmod(0o755)
    path = f"{folder}/bin{os.pathsep}{cli.environment['PATH']}"
    cli.environment = {**cli.environment, "PATH": path, "FAKE_DOCKER": str(folder)}
    return start_example(cli, "docker_controller.py", "image:1")


@pytest.mark.slow
def test_jobs_in_containers(cli: CommandLine, folder: Path) -> None:
    """The job knows its container, which is removed when the job has ended, well or not."""
    controller = start_docker_controller(cli, folder)
    (folder / "project").mkdir()
    submit(cli, "good", "--dir", folder / "project", "--", "echo", "from a container")
    submit(cli, "bad", "--", "sh", "-c", "echo failing; exit 3")
    assert (log(cli, "good"), state(cli, "good")) == ("from a container\n", ("completed", True))
    assert (log(cli, "bad"), state(cli, "bad")) == ("failing\n", ("completed", False))
    shown = json.loads(cli("jobs", "show", "good", "--json").out)
    assert shown["container_id"].startswith("container-")
    assert sorted((folder / "calls").read_text().split()) == sorted(
        ["create", "cp", "start", "rm", "create", "start", "rm"]
    )
    stop(controller)


@pytest.mark.slow
def test_a_cancel_removes_the_container(cli: CommandLine, folder: Path) -> None:
    """What ran in it is gone."""
    controller = start_docker_controller(cli, folder)
    submit(cli, "it", "--", "sh", "-c", "echo working; sleep 1000")
    wait_until(lambda: cli.log_so_far("it") == b"working\n", "the job's first line")
    container = json.loads(cli("jobs", "show", "it", "--json").out)["container_id"]
    process = int(wait_for_file(folder / f"{container}.pid"))
    cli("jobs", "cancel", "it")
    assert log(cli, "it").startswith("working\n[cancelled")
    assert not is_alive(process)
    assert not (folder / container).exists()
    assert state(cli, "it") == ("cancelled", False)
    stop(controller)
