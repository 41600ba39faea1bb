"""`ci-eventstore copy`."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ci_common.models import Job
from tests.acceptance.command_line import CommandLine, Ended
from tests.integration.store.sealing import ended_job


def test_a_store_is_copied(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """The other store has the same jobs; a digest of each store is printed; a store is never copied into itself."""
    asyncio.run(_fill(cli))
    prefix, other = cli.environment["CI_EVENTSTORE_PREFIX"], cli.environment["CI_EVENTSTORE_PREFIX"] + "-2"
    address = cli.environment["CI_EVENTSTORE_URL"]
    copied = here("copy", "--from", address, "--prefix", prefix, "--to", address, "--to-prefix", other)
    assert copied.code == 0, copied.err
    *_, first, second, source, target = copied.err.splitlines()
    assert first == "ci-eventstore: copied 2 jobs and 0 tombstones; already there: 0 jobs"
    assert second == "ci-eventstore: compared 2 jobs, 0 of them different"
    assert source.split()[-1] == target.split()[-1]
    assert here("--prefix", other, "tail", "job-1").text == here("tail", "job-1").text
    assert here("--prefix", other, "verify").code == 0
    assert here("copy", "--from", address, "--prefix", prefix, "--to", address).code == 2
    assert here("copy", "--from", address, "--prefix", "none", "--to", address).code == 2


async def _fill(cli: CommandLine) -> None:
    async with cli.repository() as repository:
        await ended_job(repository, "job-1", 5)
        await repository.create_job(Job(id="job-2", status="queued"))


def test_a_store_is_frozen_while_it_is_copied(cli: CommandLine, here: Callable[..., Ended], tmp_path: Path) -> None:
    """To another server; on the same one, or from a callable, it is refused."""
    asyncio.run(_fill(cli))
    prefix, address = cli.environment["CI_EVENTSTORE_PREFIX"], cli.environment["CI_EVENTSTORE_URL"]
    copied = here("copy", "--from", address, "--prefix", prefix, "--to", f"embedded://{tmp_path / 'other'}", "--freeze")
    assert (copied.code, "copied 2 jobs" in copied.err) == (0, True), copied.err
    same = here("copy", "--from", address, "--prefix", prefix, "--to", address, "--to-prefix", "other", "--freeze")
    assert (same.code, "both stores are on one server" in same.err) == (2, True), same.err
    none = here("copy", "--from", "ci_common.memory:MemoryJobRepository", "--to", address, "--freeze")
    assert (none.code, "--freeze" in none.err) == (2, True), none.err


def test_a_callable_may_be_the_source(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """A module's callable that returns a repository; anything else is named."""
    address = cli.environment["CI_EVENTSTORE_URL"]
    to = ["--to", address, "--to-prefix", cli.environment["CI_EVENTSTORE_PREFIX"]]
    copied = here("copy", "--from", "ci_common.memory:MemoryJobRepository", *to)
    assert (copied.code, "copied 0 jobs" in copied.err) == (0, True)
    for source, said in (("ci_common.memory:Nothing", "MODULE:CALLABLE"), ("builtins:dict", "returns a dict")):
        refused = here("copy", "--from", source, *to)
        assert (refused.code, said in refused.err) == (2, True), refused.err


def test_a_store_becomes_a_file_and_back(cli: CommandLine, here: Callable[..., Ended], tmp_path: Path) -> None:
    """Its digests are printed; a file that was cut off is refused by name, and nothing is made of it."""
    asyncio.run(_fill(cli))
    other, file = cli.environment["CI_EVENTSTORE_PREFIX"] + "-2", tmp_path / "ci.store"
    exported = here("export-store", str(file))
    assert exported.code == 0, exported.err
    assert "ci-eventstore: written 2 jobs and 0 tombstones; already there: 0 jobs" in exported.err
    assert list(tmp_path.iterdir()) == [file]
    cut = tmp_path / "cut.store"
    cut.write_bytes(file.read_bytes()[:-7])
    refused = here("import-store", str(cut), "--prefix", other)
    assert (refused.code, f"{cut}: it is cut off" in refused.err, "nothing was imported" in refused.err) == (
        4,
        True,
        True,
    )
    for said in (
        "imported 2 jobs and 0 tombstones; already there: 0 jobs",
        "imported 0 jobs and 0 tombstones; already there: 2 jobs",
    ):
        imported = here("import-store", str(file), "--prefix", other, "--partitions", "4")
        assert (imported.code, said in imported.err) == (0, True), imported.err
        digests = {line.split()[-1] for line in imported.err.splitlines() if "digest of" in line}
        assert len(digests) == 1
    assert here("--prefix", other, "tail", "job-1").text == here("tail", "job-1").text
    assert here("--prefix", other, "verify").code == 0
    assert here("export-store", "/dev/null").code == 2
    assert here("import-store", str(tmp_path / "none")).code == 74


def test_a_terminal_shows_how_much_is_done(
    cli: CommandLine, here: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a copy, an export and an import, in a line that is wiped at the end; what they say then is left."""
    asyncio.run(_fill(cli))
    address, prefix = cli.environment["CI_EVENTSTORE_URL"], cli.environment["CI_EVENTSTORE_PREFIX"]
    file = str(tmp_path / "ci.store")
    for command, what, seen in (
        (("copy", "--from", address, "--to", address, "--prefix", prefix, "--to-prefix", f"{prefix}-2"),
         "jobs copied and compared", ["2 of 4 (50%)", "4 of 4 (100%)"]),
        (("export-store", file), "jobs written and compared", ["2 of 2 (100%)"] * 2),
        (("import-store", file, "--prefix", f"{prefix}-3"),
         "jobs imported and compared", ["2 of 4 (50%)", "4 of 4 (100%)"]),
    ):  # fmt: skip
        ours, theirs = os.openpty()
        with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as here_only:
            here_only.setattr(sys, "stderr", terminal)
            assert here(*command).code == 0
        bar, _, said = _all_of(ours).rpartition("\r\033[K")
        assert bar == "".join(f"\r{what}: {one}\033[K" for one in seen)
        assert said.startswith("ci-eventstore: ")
        assert "0 of them different" in said


def _all_of(terminal: int) -> str:
    """Return what was written to a terminal that nobody has open any more."""
    shown = b""
    # Linux has no end of a terminal, but an error.
    with os.fdopen(terminal, "rb", buffering=0) as opened, suppress(OSError):
        while piece := opened.read(65536):
            shown += piece
    return shown.decode()
