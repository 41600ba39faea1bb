"""`ci-eventstore jobs`: what a person and a program see of jobs."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ci_common import Job, User
from tests.acceptance.command_line import CommandLine, Ended

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def listed(cli: CommandLine) -> CommandLine:
    """The program with five jobs, two of them Ada's."""
    async with cli.repository() as repository:
        await repository.create_user(User(id="ada", name="Ada", email="ada@example.com", created_at=BEGINNING))
        for number, status in enumerate(["queued", "running", "completed", "failed", "cancelled"]):
            created = BEGINNING + timedelta(hours=number)
            has_started, has_ended = status != "queued", status in {"completed", "failed", "cancelled"}
            job = Job(
                id=f"job-{number}",
                user_id="ada" if number < 2 else "someone",
                status=status,
                success=status == "completed" if has_ended else None,
                created_at=created,
                start_time=created if has_started else None,
                end_time=created + timedelta(minutes=3, seconds=7) if has_ended else None,
                name=f"name {number}" if number else None,
                command=["make", "all tests"],
            )
            await repository.create_job(job)
    return cli


def test_the_list_is_a_table(listed: CommandLine) -> None:
    """The newest job comes first; a job without a name shows its command, times are local, with their zone."""
    done = listed("jobs", "list", environment={"TZ": "Asia/Tokyo"})
    lines = [re.split(r" {2,}", line) for line in done.text.splitlines()]
    assert lines[0] == ["ID", "STATUS", "RESULT", "CREATED", "TOOK", "USER", "NAME"]
    assert lines[1] == ["job-4", "cancelled", "failed", "2026-01-01 13:00:00+09:00", "3m 07s", "someone", "name 4"]
    assert lines[3][1:3] == ["completed", "passed"]
    assert lines[5] == ["job-0", "queued", "-", "2026-01-01 09:00:00+09:00", "-", "ada", "make 'all tests'"]
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ((), ["job-4", "job-3", "job-2", "job-1", "job-0"]),
        (("--user", "ADA@example.com"), ["job-1", "job-0"]),
        (("--user", "someone", "--status", "failed"), ["job-3"]),
        (("--limit", "2", "--before", "job-3"), ["job-2", "job-1"]),
    ],
    ids=["all", "user by email", "user without an account, and status", "a page"],
)
@pytest.mark.usefixtures("listed")
def test_the_list_is_narrowed(here: Callable[..., Ended], arguments: tuple[str, ...], ids: list[str]) -> None:
    """By user, by status and by page."""
    assert [job["job_id"] for job in json.loads(here("jobs", "list", "--json", *arguments).out)] == ids


@pytest.mark.usefixtures("listed")
def test_the_list_says_when_there_is_more(here: Callable[..., Ended]) -> None:
    """And how to see it."""
    assert here("jobs", "list", "--limit", "2").err == "ci-eventstore: there are more: add --before job-3\n"


def test_an_empty_list_says_so(here: Callable[..., Ended]) -> None:
    """A person is told on standard error, a program gets an empty list."""
    done = here("jobs", "list")
    assert (done.code, done.out, done.err) == (0, b"", "ci-eventstore: there are no such jobs\n")
    assert json.loads(here("jobs", "list", "--json").out) == []


def test_a_job_is_shown(listed: CommandLine) -> None:
    """To a person as lines, to a program as JSON with times in UTC; the beginning of the id is enough."""
    lines = listed("jobs", "show", "job-2", environment={"TZ": "Asia/Tokyo"}).text.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["job", "job-2"],
        ["name", "name 2"],
        ["command", "make 'all tests'"],
        ["status", "completed"],
        ["result", "passed"],
        ["user", "someone"],
        ["queue", "default"],
        ["project", "-"],
        ["created", "2026-01-01 11:00:00+09:00"],
        ["started", "2026-01-01 11:00:00+09:00"],
        ["ended", "2026-01-01 11:03:07+09:00"],
        ["took", "3m 07s"],
        ["container", "-"],
    ]
    job = json.loads(listed("jobs", "show", "job-2", "--json").out)
    assert (job["created_at"], job["end_time"]) == ("2026-01-01T02:00:00Z", "2026-01-01T02:03:07Z")


async def test_a_name_cannot_move_the_cursor(cli: CommandLine) -> None:
    """Control characters in what others have written are shown, not obeyed."""
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status="queued", name="\x1b[2Jgone\nnew line"))
    assert cli("jobs", "list").text.splitlines()[1].endswith("\\x1b[2Jgone\\nnew line")


@pytest.mark.usefixtures("listed")
def test_a_queued_job_is_cancelled(here: Callable[..., Ended]) -> None:
    """Its log ends with the reason; doing it again changes nothing."""
    assert here("jobs", "cancel", "job-0", "--reason", "not needed").text == "job job-0 is cancelled\n"
    assert here("jobs", "cancel", "job-0", "--reason", "again").code == 0
    log = here("tail", "job-0")
    assert (log.code, log.text) == (1, "[cancelled: not needed]\n")


@pytest.mark.usefixtures("listed")
def test_an_ended_job_cannot_be_cancelled(here: Callable[..., Ended]) -> None:
    """The error names its status."""
    done = here("jobs", "cancel", "job-2")
    assert (done.code, done.out) == (2, b"")
    assert done.err == "ci-eventstore: job 'job-2' is completed and can't become cancelled\n"
