"""A controller while its store is away."""

import os
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, wait_for_file
from tests.acceptance.test_controller import log, start_controller, state, stop, submit
from tests.servers import RealServer, wait_until


@pytest.mark.slow
def test_a_restart_of_the_server_costs_nothing(own_cli: CommandLine, server: RealServer, tmp_path: Path) -> None:
    """What a command prints meanwhile comes later, the job stays with its controller, and new jobs are taken again."""
    for name in ("go", "end"):
        os.mkfifo(tmp_path / name)
    controller = start_controller(own_cli, "it", "--concurrency", "2")
    waits = f"read line < {tmp_path}/go; echo two; echo x > {tmp_path}/printed; read line < {tmp_path}/end"
    script = f"echo one; {waits}; exit 3"
    submit(own_cli, "it", "--", "sh", "-c", script)
    wait_until(lambda: own_cli.log_so_far("it") == b"one\n", "the first line")
    server.kill()
    (tmp_path / "go").write_text("go\n")
    wait_for_file(tmp_path / "printed")
    server.start()
    submit(own_cli, "next", "--", "echo", "next")
    assert log(own_cli, "next") == "next\n"
    (tmp_path / "end").write_text("go\n")
    assert log(own_cli, "it") == "one\ntwo\n[exit code 3]\n"
    assert state(own_cli, "it") == ("completed", False)
    stop(controller)
