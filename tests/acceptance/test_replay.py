"""`ci-eventstore replay` and `export`: a log as it was printed, a job as it was then, and files for other programs."""

import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ci_common import Job, JobEvent
from ci_eventstore.replay.exports import FORMATS, read_json_line
from tests.acceptance.command_line import CommandLine, Ended

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
#: Colours, a line that is written over, and bytes that are no UTF-8.
PRINTED = b"\x1b[31mred\x1b[0m\n 10%\r100%\n\xff\xfe\n"


@pytest.fixture
async def job(cli: CommandLine) -> str:
    """A job that printed it in pieces, an hour apart, and passed."""
    pieces = [PRINTED[:9], PRINTED[9:21], PRINTED[21:]]
    events = [
        JobEvent("log", piece.decode("utf-8", "surrogateescape"), timestamp=NOON + timedelta(hours=n))
        for n, piece in enumerate(pieces, 1)
    ]
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status="queued", created_at=NOON))
        await repository.update_job_status("it", "running", NOON)
        await repository.add_events("it", events)
        await repository.add_event("it", JobEvent("complete", success=True, timestamp=NOON + timedelta(hours=4)))
    return "it"


def test_a_log_is_replayed_as_it_was_printed(cli: CommandLine, here: Callable[..., Ended], job: str) -> None:
    """Byte for byte at any speed, in part, with facts beside it, sealed as before."""
    assert here("seal", "--once", "--after", "0s").code == 0
    fast = cli("replay", job, "--speed", "1000", "--max-gap", "1s", "--facts")
    assert (fast.code, fast.out) == (0, PRINTED)
    assert [line.split()[2] for line in fast.err.splitlines()] == ["created", "started"]
    part = here("replay", job, "--speed", "inf", "--since", "2", "--until", "2020-01-01T14:30:00Z")
    assert part.out == PRINTED[9:21]


def test_a_job_is_shown_as_it_was(job: str, here: Callable[..., Ended]) -> None:
    """By position and by time, for people and for programs; before its creation there is none."""
    assert json.loads(here("replay", job, "--at", "0", "--json").out)["status"] == "running"
    assert json.loads(here("replay", job, "--at", "4", "--json").out)["status"] == "completed"
    assert "status     queued" in here("replay", job, "--at", "2020-01-01T12:00:00Z").text
    early = here("replay", job, "--at", "2019-12-31")
    assert (early.code, "was created after 2019-12-31" in early.err) == (3, True)
    assert here("replay", job, "--at", "5").code == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("replay", "none"), 3),
        (("replay", "none", "--at", "1"), 3),
        (("export", "none", "--format", "text"), 3),
        (("replay", "it", "--speed", "0"), 2),
        (("replay", "it", "--speed", "nan"), 2),
        (("replay", "it", "--since", "yesterday"), 2),
        (("replay", "it", "--json"), 2),
        (("export", "it", "--format", "pdf"), 2),
        (("export", "it", "--format", "text", "--output", "/none/x"), 74),
    ],
)
def test_what_can_not_be_done_is_refused(
    job: str, here: Callable[..., Ended], arguments: tuple[str, ...], code: int
) -> None:
    """With the exit codes that other commands have for it, and nothing on standard output."""
    done = here(*arguments)
    assert (done.code, done.out) == (code, b"")
    assert done.err.count("ci-eventstore") or done.err.startswith("Usage")


def test_a_deleted_job_is_gone(job: str, here: Callable[..., Ended]) -> None:
    """As for `tail`."""
    assert here("jobs", "delete", job).code == 0
    calls = (("tail", job), ("replay", job), ("replay", job, "--at", "1"), ("export", job, "--format", "text"))
    ends = [here(*arguments) for arguments in calls]
    assert {(done.code, done.out, done.err) for done in ends} == {(3, b"", ends[0].err)}


def test_a_replay_ends_with_its_reader_and_at_ctrl_c(cli: CommandLine, job: str) -> None:
    """As `tail` does: with 130, and with 141."""
    waiting = cli.start("replay", job, "--max-gap", "1h")
    waiting.wait_for_output(PRINTED[:9])
    waiting.process.send_signal(signal.SIGINT)
    assert waiting.end().code == 130
    unread = cli.start("replay", job, "--max-gap", "1s")
    unread.wait_for_output(PRINTED[:9])
    assert unread.process.stdout is not None
    unread.process.stdout.close()
    assert unread.process.wait(60) == 141


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_written_to_a_file_or_to_standard_output(
    job: str, here: Callable[..., Ended], tmp_path: Path, name: str
) -> None:
    """The same to both; nothing else is left in the folder."""
    target = tmp_path / "build"
    target.write_text("an older one")
    done = here("export", job, "--format", name, "--output", str(target))
    assert (done.code, done.err, os.listdir(tmp_path)) == (0, "", ["build"])
    data = target.read_bytes()
    if name == "text":
        assert data == PRINTED
    elif name == "jsonl":
        assert [str(read_json_line(line)[1].type) for line in data.splitlines()] == [
            *("created", "started", "log", "log", "log", "complete")
        ]
    else:
        assert all(json.loads(line) for line in data.splitlines())
        assert here("export", job, "--format", name).out == data


async def test_an_export_that_breaks_off_leaves_no_file(
    cli: CommandLine, here: Callable[..., Ended], tmp_path: Path
) -> None:
    """What was there before stays."""
    target = tmp_path / "build"
    target.write_text("an older one")
    text = "x" * 50_000 + "\n"
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status="running"))
        await repository.add_events("it", [JobEvent("log", text) for _ in range(500)])
        stream, read = repository.engine.keys.job("it").stream, repository.engine.nodes.read
        await read("COPY", stream, f"{stream}:whole")
        await read("XDEL", stream, "480-0")
        done = here("export", "it", "--format", "text", "--output", str(target))
        await read("RENAME", f"{stream}:whole", stream)
    assert (done.code, os.listdir(tmp_path), target.read_text()) == (4, ["build"], "an older one")


def test_what_is_no_file_is_written_to(job: str, here: Callable[..., Ended], tmp_path: Path) -> None:
    """A pipe stays what it is, and a link goes on to lead where it led."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert here("export", job, "--format", "text", "--output", str(pipe)).code == 0
    assert (pipe.is_fifo(), os.read(reader, 1000)) == (True, PRINTED)
    os.close(reader)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert here("export", job, "--format", "text", "--output", str(tmp_path / "link")).code == 0
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "file").read_bytes()) == (True, PRINTED)


def test_a_command_with_colours_is_replayed(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """A real one, whose output has escapes and carriage returns."""
    script = "ls --color=always -d /usr /bin; printf '1%%\\r2%%\\r'; printf '\\033[1mdone\\033[0m\\n'"
    printed = cli("run", "--id", "real", "--", "sh", "-c", script).out
    assert b"\x1b[" in printed
    assert cli("replay", "real").out == here("export", "real", "--format", "text").out == printed
