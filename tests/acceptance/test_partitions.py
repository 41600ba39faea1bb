"""A store of several partitions, which commands aren't told of."""

import asyncio
import signal
from collections.abc import Callable

import pytest

from ci_eventstore import RedisJobRepository
from tests.acceptance.command_line import CommandLine, Ended

PARTITIONS = 4
JOBS = [f"job-{number}" for number in range(8)]
#: What is called, in this order, and a word of what that prints.
CALLS = (
    ("submit --id {0} -- true", "job-"),
    ("jobs list", "job-7"),
    ("jobs show {0}", "job-"),
    ("jobs keep {0}", "is kept"),
    ("jobs keep {0} --unkeep", "no longer kept"),
    ("jobs cancel {0}", "is cancelled"),
    ("tail {0} --no-follow", "cancelled"),
    ("replay {0}", "cancelled"),
    ("export {0} --format text", "cancelled"),
    ("queues", ""),
    ("facts groups", "no groups yet"),
    ("facts drop g", "no group g"),
    ("user create Ada ada@example.org", ""),
    ("user list", "Ada"),
    ("user deactivate ada@example.org", ""),
    ("user activate ada@example.org", ""),
    ("key create ada@example.org", ""),
    ("key list", ""),
    ("key revoke none", "none"),
    ("verify", "no differences"),
    ("rebuild", "nothing to mend"),
    ("seal --once --after 0s", "sealed 8 jobs"),
    ("jobs segment {0}", ""),
    ("verify --deep", "no differences"),
    ("retention --older-than 0s --dry-run", "would delete 8 jobs"),
    ("jobs delete-log {0}", "deleted"),
    ("rules drop", "keeps no rules"),
    ("rules show", "keeps no rules"),
    ("restored", ""),
    ("jobs delete {0}", "is deleted"),
)


@pytest.fixture
def cli(cli: CommandLine) -> CommandLine:
    """The program, with a store of four partitions."""
    asyncio.run(_make(cli))
    return cli


async def _make(cli: CommandLine) -> None:
    url, prefix = cli.environment["CI_EVENTSTORE_URL"], cli.environment["CI_EVENTSTORE_PREFIX"]
    async with RedisJobRepository.from_url(url, prefix=prefix, partitions=PARTITIONS) as repository:
        assert len({repository.engine.keys.job(job_id).tag for job_id in JOBS}) == PARTITIONS
    async with cli.repository() as repository:
        assert repository.engine.keys.partitions == PARTITIONS


@pytest.mark.slow
def test_all_commands_find_the_partitions(here: Callable[..., Ended]) -> None:
    """Slow, as it calls the program a hundred times: jobs of each of them are made, shown, sealed and deleted."""
    for text, says in CALLS:
        for job_id in JOBS if "{0}" in text else [""]:
            ended = here(*text.format(job_id).split())
            assert (ended.code in (0, 1, 3), says in ended.text + ended.err) == (True, True), (text, ended)
    assert here("jobs", "list").text == ""


@pytest.mark.slow
def test_processes_find_the_partitions(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """Slow, as it starts processes: a controller runs jobs of each partition, and a reader of facts is told of each."""
    reader = cli.start("facts", "tail", "--group", "g")
    for number in range(PARTITIONS):
        reader.wait_for_error(f"partition {number}")
    for job_id in JOBS:
        here("submit", "--id", job_id, "--", "true")
    controller = cli.start("controller", "--concurrency", "2")
    for job_id in JOBS:
        assert here("tail", job_id).code == 0
        reader.wait_for_output(f"ended       completed {job_id}\n".encode())
    for running in (controller, reader):
        running.send(signal.SIGINT)
        running.end()
    assert cli("run", "--id", "job-9", "--", "true").code == 0
    assert here("tail", "job-9").code == 0
