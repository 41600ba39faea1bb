"""Arguments and settings of a wrong type or out of range: a typed error that names them, and nothing is changed."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from ci_common.errors import InvalidInputError, RepositoryError
from ci_common.models import Job, JobEvent, JobStatus
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import Controller, ControllerSettings
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.settings import GivenSettings, Settings
from ci_eventstore.web import WebSettings
from ci_eventstore.writer.log_writer import WriterSettings

#: None of these is what any argument takes.
ODD: list[Any] = [object(), 5.5, b"\xff", {"a": 1}]
#: Arguments that any number is good for.
NUMERIC = {"speed", "longest_gap_seconds"}
#: Built on, rather than called: `Controller` and `LeaseKeeper` are what is used.
INTERNAL = {"writer", "keep_leases", "engine", "close", "initialize", "following_stats", "restored"}
#: Arguments that are called or handed on, not looked at.
CALLED = {"self", "progress", "settings"}
SETTINGS = [Settings, ControllerSettings, WriterSettings, WebSettings]
NUMBERS: dict[str, list[Any]] = {
    "partitions": [0, -1, 1.5, 1025],
    "max_event_bytes": [0, -1, 1.5],
    "max_head_bytes": [0, -1, 1.5],
    "replicas": [0, -1, 1.5],
    "concurrency": [0, -1, 1.5],
    "lease_seconds": [0, 0.9, -1, 10**9],
    "max_attempts": [0, -1, 2.5],
    "grace_seconds": [-1, 10**9],
    "poll_seconds": [0, -1, 0.001, 10**9],
    "pause_seconds": [-1],
    "spool_characters": [0, -1, 1.5],
    "patience_seconds": [-1],
    "max_project_bytes": [0, -1, 1.5],
    "max_streams_per_user": [0, -1, 1.5],
    "heartbeat_seconds": [0, -1, 0.001],
}


def arguments() -> list[tuple[str, str]]:
    """Return all public methods of the repository with each of their arguments."""
    found = []
    for name, member in inspect.getmembers(RedisJobRepository):
        if callable(member) and not name.startswith("_") and name not in INTERNAL | {"from_url"}:
            found += [
                (name, parameter) for parameter in inspect.signature(member).parameters if parameter not in CALLED
            ]
    return found


#: What the other arguments are; a job `job` is there and runs.
GOOD: dict[str, Any] = {
    "job": lambda: Job(id="new", status="queued"),
    "job_id": lambda: "job",
    "event": lambda: JobEvent("log", "x"),
    "events": lambda: [JobEvent("log", "x")],
    "status": lambda: "running",
    "success": lambda: True,
    "last_event_id": lambda: 0,
    "line": lambda: 1,
    "user_id": lambda: "ada",
    "is_active": lambda: True,
    "email": lambda: "a@x.org",
    "key_hash": lambda: "hash",
    "key_id": lambda: "key",
    "prefix": lambda: "jo",
}


async def call(method: Callable[..., Any], given: dict[str, Any]) -> None:
    """Call a method of any kind, as far as its first result."""
    found = method(**given)
    if inspect.isasyncgen(found):
        await anext(found)
    elif inspect.isawaitable(found):
        await found


@pytest.mark.parametrize(("method", "argument"), arguments(), ids=lambda part: part)
async def test_an_odd_argument_is_refused(repository: RedisJobRepository, method: str, argument: str) -> None:
    """Each argument of each method: a typed error, and nothing is changed."""
    await repository.create_job(Job(id="job", status="running"))
    before = await repository.list_jobs()
    signature = inspect.signature(getattr(RedisJobRepository, method))
    for odd in ODD:
        if isinstance(odd, float) and argument in NUMERIC:
            continue
        given = {
            name: GOOD[name]() if name in GOOD else None
            for name, parameter in signature.parameters.items()
            if name != "self" and parameter.default is inspect.Parameter.empty
        }
        if argument == "timestamp" or "end_time" in given:
            given |= {name: before[0].created_at for name in ("end_time", "timestamp") if name in given}
        given[argument] = odd
        with pytest.raises(InvalidInputError):
            await call(getattr(repository, method), given)
    assert await repository.list_jobs() == before
    assert await repository.list_users() == []
    assert await repository.get_events_since("job", 0) == []


def test_all_numbers_are_tried() -> None:
    """The table has each setting that is a number."""
    fields = [field for settings in SETTINGS for field in dataclasses.fields(settings)]
    assert {field.name for field in fields if field.type in (int, float, int | None)} == set(NUMBERS)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_setting_that_cant_be_is_named(settings: Any) -> None:
    """Each setting, of any other type or out of range: `ConfigurationError` with its name."""
    for field in dataclasses.fields(settings):
        for value in [*ODD, *NUMBERS.get(field.name, []), *([math.nan, True, "1"] if field.name in NUMBERS else [])]:
            if field.type is float and value == 5.5:
                continue
            with pytest.raises((ConfigurationError, InvalidInputError), match=field.name):
                settings(**{field.name: value})


@pytest.mark.parametrize("odd", ["prefix", "partitions", "url"])
def test_an_odd_address_is_refused(odd: str) -> None:
    """A URL, a prefix and a number of partitions that are none."""
    for value in (5.5, b"x", object(), ["ci"]):
        with pytest.raises(ConfigurationError):
            RedisJobRepository.from_url(**({"url": "redis://localhost"} | {odd: value}))  # type: ignore[arg-type]


def test_a_subclass_is_made_as_any_other_class() -> None:
    """By its own constructor, whichever way it is made; the settings are the keywords of both ways."""

    class Own(RedisJobRepository):
        def __init__(self, client: object, **settings: Any) -> None:
            super().__init__(client, **settings)
            self.settings = settings

    for made in (Own.from_url("redis://localhost", prefix="own"), Own(Redis(), prefix="own")):
        assert (type(made), made.settings) == (Own, {"prefix": "own"})
    assert set(GivenSettings.__annotations__) == {field.name for field in dataclasses.fields(Settings)}


async def test_a_text_in_place_of_a_list(repository: RedisJobRepository) -> None:
    """Secrets and queues that are one text aren't taken for lists of letters."""
    for make in (
        lambda: repository.log_writer("job", secrets="token"),
        lambda: Controller(repository, secrets="token"),
        lambda: Controller(repository, queues="default"),
        lambda: Controller(repository, queues=[]),
        lambda: WebSettings(queues="default"),  # type: ignore[arg-type]
    ):
        with pytest.raises((InvalidInputError, ConfigurationError)):
            make()


async def test_odd_things_in_a_log(repository: RedisJobRepository) -> None:
    """A log takes text and bytes; what else is written to it is refused, and the log goes on."""
    await repository.create_job(Job(id="job", status="running"))
    async with repository.log_writer("job") as writer:
        for odd in (5, None, ["x"], object()):
            with pytest.raises(InvalidInputError, match="data="):
                await writer.write(odd)  # type: ignore[arg-type]
        await writer.write("a line\n")
    assert [event.data for event in await repository.get_events_since("job", 0)] == ["a line\n"]


@pytest.mark.parametrize("status", [None, JobStatus.RUNNING])
async def test_a_page_is_short_only_at_the_end(
    valkey: Any, server: Nodes, keys: Keys, status: JobStatus | None
) -> None:
    """Jobs that a page leaves out, since they are damaged or have moved on, don't make it shorter."""
    async with RedisJobRepository.from_url(valkey.url) as repository:
        for number in range(20):
            await repository.create_job(Job(id=f"job-{number:02}", status="running"))
        for number in (19, 18, 16, 13, 12, 11):
            await server.read("DEL", keys.job(f"job-{number:02}").hash)
        page = await repository.page_jobs(status=status, limit=5)
        assert [job.id for job in page] == ["job-17", "job-15", "job-14", "job-10", "job-09"]
        await repository.rebuild()


def test_errors_of_arguments_have_one_root() -> None:
    """Whoever catches RepositoryError or ValueError catches them."""
    for make in (lambda: Job(id="1", status="queued", command="make"), lambda: ControllerSettings(poll_seconds=0)):
        with pytest.raises(RepositoryError):
            make()
        with pytest.raises(ValueError, match="must be"):
            make()
