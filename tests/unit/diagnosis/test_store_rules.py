"""What a store holds, and what that means: tables."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ci_eventstore.diagnosis.findings import Finding
from ci_eventstore.diagnosis.store_rules import (
    ArchiveSeen,
    EndedJob,
    GroupSeen,
    GrowthSeen,
    QueueSeen,
    SealingSeen,
    bytes_per_job,
    judge_archive,
    judge_consumers,
    judge_growth,
    judge_queues,
    judge_sealing,
    judge_store,
    judge_webhooks,
)
from ci_eventstore.webhooks.store import Listed
from ci_eventstore.webhooks.webhook import Secret, Webhook

HOUR, DAY = 3600.0, 86_400.0
MIB = 1 << 20


def one_of(found: Sequence[Finding], check: str) -> tuple[str, str]:
    """Return severity and text of the only finding, which is of that check, and says what to do if it is bad."""
    [finding] = found
    assert finding.check == check
    assert finding.advice or finding.severity in ("ok", "note")
    return finding.severity, finding.what


@pytest.mark.parametrize(
    ("version", "partitions", "severity", "says"),
    [
        ("5", "64", "ok", "format 5, 64 partitions"),
        (None, None, "note", "no store 'ci'"),
        ("3", "1", "error", "format version 3"),
        ("0", "1", "error", "being upgraded"),
        ("5", "many", "error", "no number"),
        (None, "1", "error", "format version"),
    ],
)
def test_the_record_of_the_store(version: str | None, partitions: str | None, severity: str, says: str) -> None:
    """A store that isn't there yet is no error; one that can't be opened is."""
    found = judge_store("ci", version, partitions)
    assert (found.severity, says in found.what) == (severity, True)
    assert found.advice or severity == "ok"


@pytest.mark.parametrize(
    ("queue", "severity", "says"),
    [
        ({}, "ok", "0 jobs wait in 1 queue; 0 of them have"),
        ({"waiting": 1, "oldest_seconds": 5.0}, "ok", "1 job waits in 1 queue"),
        ({"waiting": 1, "oldest_seconds": HOUR}, "warning", "1 job waits in queue 'q', the first for 1h 00m, and no"),
        ({"waiting": 3, "oldest_seconds": 60.0, "asked": {"c": 300.0}}, "warning", "3 jobs wait"),
        ({"waiting": 3, "oldest_seconds": 60.0, "asked": {"c": 3.0}}, "ok", "1 of them have a controller"),
        ({"waiting": 3, "oldest_seconds": 60.0, "running": 1}, "ok", "3 jobs wait in 1 queue"),
        ({"waiting": 3, "oldest_seconds": 2 * HOUR, "running": 1}, "note", "the first for 2h 00m"),
    ],
)
def test_queues(queue: dict[str, Any], severity: str, says: str) -> None:
    """Jobs wait for a controller that isn't there, or for one that is busy."""
    assert one_of(judge_queues([QueueSeen(name="q", **queue)]), "queues")[0] == severity
    assert says in judge_queues([QueueSeen(name="q", **queue)])[0].what


@pytest.mark.parametrize(
    ("queue", "severity", "says"),
    [
        ({"running": 2, "holders": frozenset({"c"})}, "ok", "2 jobs under a lease"),
        ({"overdue": [("j", "c", 5.0)]}, "ok", "0 jobs under"),
        (
            {"overdue": [("j", "c", 90.0), ("k", "c", 40.0)]},
            "warning",
            "the leases of 2 jobs of queue 'q' ran out 1m 30s",
        ),
        ({"overdue": [("j", "", 90.0)]}, "warning", "(job j, held by a controller)"),
        ({"name": "", "overdue": [("j", "c", 90.0)]}, "warning", "of `ci-eventstore run` ran out"),
        ({"asked": {"c": 300.0}}, "note", "1 controller of queue 'q' has gone"),
        ({"asked": {"c": 300.0, "d": 300.0}}, "note", "2 controllers of queue 'q' have gone without signing off: c, d"),
        ({"asked": {"c": 300.0}, "holders": frozenset({"c"}), "running": 1}, "ok", "1 job under a lease"),
        ({"asked": {"c": 3.0}}, "ok", "0 groups"),
    ],
)
def test_controllers(queue: dict[str, Any], severity: str, says: str) -> None:
    """A lease that ran out long ago, and a controller that neither asks nor holds a job, are told."""
    found, what = one_of(judge_consumers([QueueSeen(**{"name": "q", **queue})], []), "consumers")
    assert (found, says in what) == (severity, True), what


@pytest.mark.parametrize(
    ("silent", "behind", "severity", "says"),
    [
        (5.0, 0.0, "ok", "1 group of readers"),
        (700.0, 0.0, "warning", "for 11m 40s"),
        (2 * DAY, 0.0, "warning", "it will miss some"),
        (5.0, 2 * HOUR, "warning", "2h 00m behind"),
    ],
)
def test_groups(silent: float, behind: float, severity: str, says: str) -> None:
    """A group that nobody reads for, or that doesn't keep up."""
    group = GroupSeen(name="g", silent_seconds=silent, behind_seconds=behind)
    found, what = one_of(judge_consumers([], [group]), "consumers")
    assert (found, says in what) == (severity, True), what


HOOK = Webhook(
    id="w", url="https://a.example/", user_id=None, events=(), created_ms=0, enabled_ms=0, secrets=(Secret("whsec_AA"),)
)
FAILING = replace(HOOK, failing_since_ms=1, failures=3, last_error="the receiver answered 500")


@pytest.mark.parametrize(
    ("hooks", "severity", "says"),
    [
        ([], "ok", "0 webhooks, 0 messages wait"),
        ([HOOK, HOOK], "ok", "2 webhooks, 2 messages wait"),
        ([HOOK, FAILING], "note", "1 webhook can't be sent, w for 2h 00m: the receiver answered 500"),
        (
            [HOOK, FAILING.disabled(9, "it is full")],
            "warning",
            "1 webhook is disabled, such as w: disabled: it is full",
        ),
    ],
)
def test_webhooks(hooks: list[Webhook], severity: str, says: str) -> None:
    """One that was disabled needs somebody; one that fails is tried again."""
    found, what = one_of(judge_webhooks([Listed(hook, 1) for hook in hooks], int(2 * HOUR * 1000) + 1), "webhooks")
    assert (found, says in what) == (severity, True), what


def test_a_group_of_webhooks_needs_a_sender() -> None:
    """The advice names what sends."""
    [found] = judge_consumers([], [GroupSeen(name="webhooks", silent_seconds=700.0, behind_seconds=0.0)])
    assert "`ci-eventstore serve` or `webhook send`" in found.advice


@pytest.mark.parametrize(
    ("seen", "severity", "says"),
    [
        ({"unsealed": 0}, "ok", "0 jobs of 0"),
        ({"unsealed": 5, "ended": 5, "oldest_seconds": HOUR}, "ok", "5 jobs of 5"),
        ({"unsealed": 5, "ended": 5, "oldest_seconds": 3 * DAY}, "note", "the first for 3d 00h"),
        ({"unsealed": 5, "ended": 9, "oldest_seconds": 3 * DAY}, "warning", "5 jobs of 9"),
        (
            {"unsealed": 1, "ended": 9, "oldest_seconds": 3 * DAY, "failed": 1, "example": "job j: why"},
            "warning",
            "why",
        ),
    ],
)
def test_sealing(seen: dict[str, Any], severity: str, says: str) -> None:
    """A store that never seals may be meant to; one that has sealed, and doesn't any more, isn't."""
    found, what = one_of(judge_sealing(SealingSeen(**seen)), "unsealed")
    assert (found, says in what) == (severity, True), what


LIVE = EndedJob(text_bytes=100_000)
SEALED = EndedJob(text_bytes=100_000, sealed_bytes=10_000)
ARCHIVED = EndedJob(text_bytes=100_000, archived_bytes=10_000)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], 0),
        ([LIVE], 39_800),
        ([SEALED], 11_000),
        ([LIVE, SEALED], 11_000),
        ([ARCHIVED, ARCHIVED], 700),
        ([ARCHIVED, SEALED], 6000),
        ([EndedJob(text_bytes=0, sealed_bytes=300)], 1000),
    ],
)
def test_what_a_job_takes_in_the_end(jobs: list[EndedJob], expected: float) -> None:
    """If some jobs are sealed, or archived, the others will be."""
    assert bytes_per_job(jobs) == expected


@pytest.mark.parametrize(
    ("changes", "severity", "says"),
    [
        ({"jobs": [SEALED] * 19}, "ok", "19 jobs ended so far: too few"),
        ({}, "ok", "about 100 jobs end a day, of 11 KiB each: 1.0 MiB a day, and the memory is full in years"),
        ({"limit_bytes": 0}, "ok", "how much room there is can't be seen"),
        ({"limit_bytes": 121 * MIB}, "warning", "full in 20 days"),
        ({"limit_bytes": 101 * MIB}, "error", "full in 0 days"),
        ({"limit_bytes": 99 * MIB}, "error", "full in 0 days"),
        ({"limit_bytes": 101 * MIB, "has_retention": True}, "ok", "until rules of retention"),
    ],
)
def test_growth(changes: dict[str, Any], severity: str, says: str) -> None:
    """The nearer the end of the memory, the worse; retention makes room by itself."""
    seen = {"used_bytes": 100 * MIB, "limit_bytes": 1000 * MIB, "jobs_per_day": 100, "jobs": [SEALED] * 20}
    found, what = one_of(judge_growth(GrowthSeen(**{**seen, **changes})), "forecast")
    assert (found, says in what) == (severity, True), what


@pytest.mark.parametrize(
    ("seen", "severities"),
    [
        (None, ["ok"]),
        ({}, ["ok"]),
        ({"is_read_only": True}, ["ok"]),
        ({"is_bucket": True}, ["ok", "note"]),
        ({"trouble": "it is away", "is_bucket": True}, ["error"]),
        ({"is_foreign": True}, ["error"]),
        ({"overwrites": True}, ["error"]),
        ({"leftover": "x"}, ["warning"]),
    ],
)
def test_archive(seen: dict[str, Any] | None, severities: list[str]) -> None:
    """Objects have to be created once, read and deleted; rules of a bucket can't be seen."""
    found = judge_archive(None if seen is None else ArchiveSeen(url="file:///srv/ci", **seen))
    assert [one.severity for one in found] == severities
