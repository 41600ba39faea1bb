"""Ask all partitions of a store while some of them may be away: who can do without those goes on with the others.

Where one server holds the store, there are either all partitions or none, and errors fly as they do elsewhere.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

from ci_eventstore.connection.failures import partition_of
from ci_eventstore.connection.nodes import Nodes, server_of
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.connection.way import in_a_hurry
from ci_eventstore.errors import AuthenticationError, OutcomeUnknownError, StoreError, StoreUnavailableError

T = TypeVar("T")

logger = logging.getLogger("ci_eventstore.connection")

#: What a partition that is away raises.
AWAY = (StoreUnavailableError, OutcomeUnknownError)


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What partitions answered, and why the others didn't, each by its hash tag."""

    given: Mapping[str, T]
    away: Mapping[str, StoreError]

    @property
    def unavailable(self) -> tuple[int, ...]:
        """The numbers of the partitions that are away."""
        return numbers_of(self.away)


def numbers_of(tags: Iterable[str]) -> tuple[int, ...]:
    """Return the numbers of the partitions with these hash tags, in order."""
    return tuple(sorted(number for tag in tags if isinstance(number := partition_of((tag,)), int)))


def names_of(numbers: Sequence[int]) -> str:
    """Return what people are told of partitions that are away: "partition 3" or "partitions 3, 7"."""
    return f"partition{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"


async def ask_each(
    nodes: Nodes, tags: Sequence[str], ask: Callable[[str], Awaitable[T]], *, within_seconds: float | None = None
) -> Answers[T]:
    """Ask all partitions at the same time; those that give no answer soon, or `within_seconds`, are away.

    If none answers, all of them are asked with the usual patience, and the first error is raised.
    """
    if nodes.is_divided:
        with in_a_hurry():
            found = await asyncio.gather(*(_answer_of(tag, ask, within_seconds) for tag in tags))
        given = {tag: answer for tag, answer in zip(tags, found, strict=True) if not isinstance(answer, _Away)}
        if given or within_seconds is not None:
            away = {tag: answer.error for tag, answer in zip(tags, found, strict=True) if isinstance(answer, _Away)}
            report(nodes, tags, away)
            if not given:
                raise next(iter(away.values()))
            return Answers(given, away)
    return Answers(dict(zip(tags, await asyncio.gather(*map(ask, tags)), strict=True)), {})


async def go_through(
    nodes: Nodes, tags: Sequence[str], work: Callable[[str], Awaitable[object]]
) -> Mapping[str, StoreError]:
    """Do some work in one partition after the other; return those that were away, with their errors.

    After the first of them, the others are waited for only shortly. If all are away, the first one's error is raised.
    """
    away: dict[str, StoreError] = {}
    for tag in tags:
        try:
            with in_a_hurry() if away else nullcontext():
                await work(tag)
        except AWAY as error:
            if not nodes.is_divided or not is_absence(error):
                raise
            away[tag] = named(error, tag)
    report(nodes, tags, away)
    if away and len(away) == len(tags):
        raise next(iter(away.values()))
    return away


def is_absence(error: Exception) -> bool:
    """Return whether an error says that a server isn't there, or takes nothing; a missing right is a mistake."""
    return isinstance(error, AWAY) and not isinstance(error, AuthenticationError)


def named(error: StoreError, tag: str) -> StoreError:
    """Have an error name the partition that was asked."""
    if isinstance(error, StoreUnavailableError) and error.partition is None:
        error.partition = partition_of((tag,))
    return error


def report(nodes: Nodes, tags: Sequence[str], away: Mapping[str, StoreError]) -> None:
    """Log that partitions are away, once a minute for each server that had them, and that all of them are back."""
    absent = nodes.outages.absent
    for tag in tags:
        if tag in away:
            server = server_of(nodes, tag)
            log = absent.setdefault(tag, _log_of(nodes, server.link.deployment.name if server else ""))
            log.failed(away[tag])
        elif (was_absent := absent.pop(tag, None)) is not None and was_absent not in absent.values():
            was_absent.worked()


def _log_of(nodes: Nodes, server: str) -> OutageLog:
    over = f"the partitions that were away with {server or 'their server'} answer again"
    return nodes.outages.of(logger, "partitions are away: %s", over, kind=server)


@dataclass(frozen=True, slots=True)
class _Away:
    error: StoreError


async def _answer_of(tag: str, ask: Callable[[str], Awaitable[T]], within_seconds: float | None) -> T | _Away:
    try:
        async with asyncio.timeout(within_seconds):
            return await ask(tag)
    except TimeoutError:
        return _Away(named(StoreUnavailableError(f"partition {tag}: no answer in {within_seconds:g} seconds"), tag))
    except StoreUnavailableError as error:
        if not is_absence(error):
            raise
        return _Away(named(error, tag))
