"""`ci-eventstore jobs grep` and `tail --from-line`: a log by its lines, without reading all of it by eye."""

import json

from ci_common import Job, JobEvent
from tests.acceptance.command_line import CommandLine

TEXTS = ["one\n\x1b[31mer", "ror\x1b[0m: a\n", "50 %\rdone\r\n", "three\nfour\nfive\n", "Error: b \udcff", "\nlast"]


async def create(cli: CommandLine) -> None:
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status="running", events=[JobEvent("log", text) for text in TEXTS]))


async def test_a_log_is_searched(cli: CommandLine) -> None:
    """Lines as a terminal shows them, with their numbers and those around them, or as JSON, or counted."""
    await create(cli)
    assert cli("jobs", "grep", "it", "error").out == b"2:error: a\n"
    assert cli("jobs", "grep", "it", "-i", "ERROR").out == b"2:error: a\n7:Error: b \xff\n"
    assert cli("jobs", "grep", "it", "-i", "error", "-C", "1").out == (
        b"1-one\n2:error: a\n3-done\n--\n6-five\n7:Error: b \xff\n8-last\n"
    )
    assert cli("jobs", "grep", "it", "-E", "^(do|la)[a-z]+$", "-c").out == b"2\n"
    found = json.loads(cli("jobs", "grep", "it", "b ", "--json").out)
    assert {**found, "t": ""} == {"n": 7, "t": "", "text": "Error: b \ufffd", "at": [[7, 9]]}
    nothing = cli("jobs", "grep", "it", "50 %")
    assert (nothing.code, nothing.out, nothing.err) == (1, b"", "")
    refused = cli("jobs", "grep", "it", "-E", "(")
    assert refused.code == 2
    assert "TEXT: missing )" in refused.err


async def test_a_log_is_printed_from_a_line_on(cli: CommandLine) -> None:
    """Byte for byte; a line that there isn't yet is waited for, or is nothing."""
    await create(cli)
    data = "".join(TEXTS).encode("utf-8", "surrogateescape")
    for line in (1, 2, 4, 8, 9):
        done = cli("tail", "it", "--no-follow", "--from-line", str(line))
        assert done.out == (b"" if line == 9 else data.split(b"\n", line - 1)[-1])
    stamped = cli("tail", "it", "--no-follow", "--timestamps", "--from-line", "6")
    assert [line[25:] for line in stamped.out.split(b"\n")] == [b"five", b"Error: b \xff", b"last"]
    tail = cli.start("tail", "it", "--from-line", "9")
    async with cli.repository() as repository:
        await repository.add_event("it", JobEvent("log", " and\nnext\n"))
        await repository.cancel_job("it")
    assert tail.end().out == b"next\n[cancelled]\n"
    assert cli("tail", "it", "--from-line", "1", "--after", "2").code == 2
