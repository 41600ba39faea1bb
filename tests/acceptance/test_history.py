"""`ci-eventstore seal`, `jobs segment` and `verify-archive`."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, Ended
from tests.servers import wait_until


def test_a_log_is_sealed_written_and_proven(cli: CommandLine, here: Callable[..., Ended], tmp_path: Path) -> None:
    """It reads as before; `jobs show` has the root by which anyone proves the file, and tells one that was altered."""
    cli("run", "--id", "job-1", "--", "printf", "hello\\nworld\\n")
    assert here("jobs", "segment", "job-1").code == 4
    before = here("tail", "job-1").out
    sealed = here("seal", "--once", "--after", "0s")
    assert (sealed.code, sealed.err) == (0, "ci-eventstore: sealed 1 job\n")
    assert here("tail", "job-1").out == before
    assert here("verify", "--deep").code == 0
    root = json.loads(here("jobs", "show", "job-1", "--json").out)["root"]
    assert root in here("jobs", "show", "job-1").text
    data, file = cli("jobs", "segment", "job-1").out, tmp_path / "job-1.zst"
    file.write_bytes(data)
    found = here("verify-archive", str(file))
    assert (found.code, found.text.splitlines()[1:], found.err) == (0, ["consistent"], "")
    proven = here("verify-archive", str(file), "--root", root)
    assert (proven.code, proven.text.splitlines()[1]) == (0, "complete and unaltered")
    assert here("verify-archive", str(file), "--root", "ab" * 20).code == 1
    assert here("verify-archive", str(file), "--root", "ab").code == 2
    file.write_bytes(data[:10] + bytes([data[10] ^ 1]) + data[11:])
    altered = here("verify-archive", str(file))
    assert (altered.code, "block 0: its" in altered.text) == (1, True)
    assert here("verify-archive", str(tmp_path / "none")).code == 74
    assert here("seal", "--once").err == "ci-eventstore: sealed 0 jobs\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "told"), [(("serve", "--port", "0"), "serving on "), (("controller",), "takes jobs from")]
)
def test_a_program_seals_meanwhile(
    cli: CommandLine, here: Callable[..., Ended], command: tuple[str, ...], told: str
) -> None:
    """Slow, as it starts a server: with `--seal-after`, that packs what has ended, and stops as before."""
    cli("run", "--id", "job-1", "--", "echo", "hello")
    server = cli.start(*command, "--seal-after", "0s")
    server.wait_for_error(told)
    wait_until(lambda: json.loads(here("jobs", "show", "job-1", "--json").out)["root"] is not None, "the job is sealed")
    server.send(signal.SIGTERM)
    assert server.end().code == 0
    assert here("verify", "--deep").code == 0
