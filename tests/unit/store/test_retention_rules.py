"""Which jobs the rules of retention take, how they are written, and what is said of a job."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common.models import JobStatus
from ci_common.transitions import ENDED
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import Reference
from ci_eventstore.history.rules import (
    RECORD_BYTES,
    Rule,
    Selection,
    outlook,
    read_rules,
    size_of,
    write_rules,
)
from ci_eventstore.jobs.state import JobState

NOW = datetime(2026, 11, 26, tzinfo=UTC)
SEALED = str(Reference(Place(0, 1), Place(7, 0), 100, b"12345678"))
LONG_AGO = JobState(
    status=JobStatus.COMPLETED,
    queue="default",
    created_at=NOW - timedelta(days=40),
    end_time=NOW - timedelta(days=31),
    position=7,
    part=0,
    log=SEALED,
)
MONTH = Rule(older_than_seconds=30 * 86_400)
KEEP = Rule(keeps=True)


@pytest.mark.parametrize(
    ("rules", "state", "is_taken"),
    [
        ([MONTH], LONG_AGO, True),
        ([MONTH], replace(LONG_AGO, end_time=NOW - timedelta(days=29)), False),
        ([MONTH], replace(LONG_AGO, end_time=NOW - timedelta(days=30)), True),
        ([MONTH], replace(LONG_AGO, end_time=None), True),
        ([MONTH], replace(LONG_AGO, status=JobStatus.RUNNING), False),
        ([MONTH], replace(LONG_AGO, status=JobStatus.QUEUED), False),
        ([MONTH], replace(LONG_AGO, claim="1 t"), False),
        ([MONTH], replace(LONG_AGO, log=None), False),
        ([MONTH], replace(LONG_AGO, is_kept=True), False),
        ([MONTH], replace(LONG_AGO, is_kept=False), True),
        ([MONTH], replace(LONG_AGO, position=8), False),
        ([MONTH], replace(LONG_AGO, end_time=datetime.max), False),
        ([replace(MONTH, takes_unsealed=True)], replace(LONG_AGO, log=None), True),
        ([replace(MONTH, statuses=frozenset({JobStatus.FAILED}))], LONG_AGO, False),
        ([replace(MONTH, statuses=frozenset({JobStatus.COMPLETED}))], LONG_AGO, True),
        ([replace(MONTH, queues=frozenset({"other"}))], LONG_AGO, False),
        ([replace(MONTH, queues=frozenset({"other", "default"}))], LONG_AGO, True),
        ([], LONG_AGO, False),
        ([KEEP, MONTH], LONG_AGO, False),
        ([replace(KEEP, queues=frozenset({"other"})), MONTH], LONG_AGO, True),
        ([replace(MONTH, queues=frozenset({"other"})), KEEP], LONG_AGO, False),
        ([Rule(older_than_seconds=40 * 86_400), MONTH], LONG_AGO, False),
    ],
)
def test_what_rules_take(rules: list[Rule], state: JobState, is_taken: bool) -> None:
    """By the first rule that fits: by the end, the status, the queue and where the log lies; never what runs."""
    assert Selection(rules).takes("j", state, NOW) is is_taken


def test_sizes() -> None:
    """The newest jobs stay whose bytes fit, as stored; what isn't taken doesn't count, nor what another rule has."""
    rules = [Rule(queues=frozenset({"kept"}), keeps=True), Rule(max_bytes=3 * (RECORD_BYTES + 100))]
    selection = Selection(rules)
    jobs = {f"j{age}": LONG_AGO.but(end_time=NOW - timedelta(days=age)) for age in range(8)}
    jobs["j1"] = jobs["j1"].but(is_kept=True)
    jobs["j2"] = jobs["j2"].but(log=None, bytes=10**9)
    jobs["j3"] = jobs["j3"].but(queue="kept")
    for job_id, state in jobs.items():
        assert selection.needs_more() == (job_id < "j7")
        selection.add(job_id, state)
    taken = [job_id for job_id, state in jobs.items() if selection.takes(job_id, state, NOW)]
    assert (taken, selection.needs_more()) == (["j6", "j7"], True) or taken == ["j6", "j7"]
    assert size_of("j2", jobs["j2"]) == RECORD_BYTES + 10**9


def test_empty_counters_take_nothing() -> None:
    """Jobs whose counters are empty are small, and a selection that was shown none takes none."""
    rules = [Rule(max_bytes=10 * RECORD_BYTES, takes_unsealed=True)]
    assert not Selection(rules).takes("j", LONG_AGO, NOW)
    selection = Selection(rules)
    for number in range(10):
        selection.add(f"j{number}", LONG_AGO.but(log=None, bytes=0))
    assert not selection.takes("j0", LONG_AGO, NOW)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({"older_than_seconds": -1}, "older-than"),
        ({"older_than_seconds": float("nan")}, "older-than"),
        ({"older_than_seconds": 1e12}, "31 years"),
        ({"older_than_seconds": "30d"}, "older-than"),
        ({"max_bytes": 0}, "max-size"),
        ({}, "keep = true"),
        ({"keeps": True, "max_bytes": 5}, "keep = true"),
        ({"older_than_seconds": 0, "statuses": frozenset({JobStatus.RUNNING})}, "cancel it first"),
    ],
)
def test_a_rule_that_nobody_means(known: dict[str, object], says: str) -> None:
    """Refused, before anything is deleted."""
    with pytest.raises(ConfigurationError, match=says):
        Rule(**known)  # type: ignore[arg-type]  # what isn't right is tried


GOOD = """
[[rules]]
queue = "release"
keep = true
[[rules]]
status = ["failed", "cancelled"]
queue = ["nightly", "weekly"]
older-than = "7d"
[[rules]]
older-than = "90d"
max-size = "10GiB"
unsealed = true
"""


def test_rules_are_read() -> None:
    """As TOML by people, and as JSON from the store."""
    found = read_rules(GOOD, "retention.toml", is_json=False)
    assert found == [
        Rule(queues=frozenset({"release"}), keeps=True),
        Rule(
            statuses=frozenset({JobStatus.FAILED, JobStatus.CANCELLED}),
            queues=frozenset({"nightly", "weekly"}),
            older_than_seconds=7 * 86_400,
        ),
        Rule(older_than_seconds=90 * 86_400, max_bytes=10 << 30, takes_unsealed=True),
    ]
    assert read_rules(write_rules(found), "the store", is_json=True) == found


RULES = st.builds(
    Rule,
    statuses=st.frozensets(st.sampled_from(sorted(ENDED))),
    queues=st.frozensets(st.text("abc\u20ac ", min_size=1, max_size=3), max_size=3),
    older_than_seconds=st.integers(0, 10**9 - 1).map(float),
    max_bytes=st.none() | st.integers(1, 10**14),
    takes_unsealed=st.booleans(),
)


@given(st.lists(RULES, min_size=1, max_size=3))
def test_rules_are_kept_as_they_are(rules: list[Rule]) -> None:
    """What is written is read."""
    assert read_rules(write_rules(rules), "the store", is_json=True) == rules


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rules]]\nolder-than = 30d\n", "at line 2, column 16"),
        ("", "it must have rules"),
        ("rules = []", "it must have rules"),
        ("[rules]\nkeep = true", "it must have rules"),
        ("[[rules]]\nkeep = true\n[[rule]]\nkeep = true", "nothing else"),
        ("[[rules]]\nkeep = true\n[[rules]]\nage = '3d'", "rule 2: age: there is no such field, only status, queue"),
        ("[[rules]]\nolder-than = '3 days'", "rule 1: older-than: '3 days' is no duration"),
        ("[[rules]]\nolder-than = 3", "rule 1: older-than: 3 must be a text"),
        ("[[rules]]\nmax-size = '3GB'", "rule 1: max-size: '3GB' is no size"),
        ("[[rules]]\nmax-size = 3", "rule 1: max-size: 3 must be a text"),
        ("[[rules]]\nkeep = 1", "rule 1: keep: 1 must be true or false"),
        ("[[rules]]\nstatus = 'bad'\nkeep = true", "rule 1: status: 'bad'"),
        ("[[rules]]\nstatus = 'running'\nkeep = true", "rule 1: status: a job that hasn't ended"),
        ("[[rules]]\nqueue = []\nkeep = true", "rule 1: queue: \\[\\] must be a text"),
        ("[[rules]]\nqueue = [1]\nkeep = true", "rule 1: queue"),
        ("rules = [1]", "rule 1: 1 is no table"),
        ("[[rules]]\nqueue = 'q'", "rule 1: it must have older-than, max-size or both"),
    ],
)
def test_what_is_wrong_with_rules_is_named(text: str, says: str) -> None:
    """The file, the rule and the field, or the line."""
    with pytest.raises(ConfigurationError, match=f"^r.toml: .*{says}"):
        read_rules(text, "r.toml", is_json=False)


@pytest.mark.parametrize("text", ["{", "[]", '{"rules": 1}', "[" * 100_000])
def test_json_that_has_no_rules(text: str) -> None:
    """It is refused as well."""
    with pytest.raises(ConfigurationError, match=r"^r\.json: "):
        read_rules(text, "r.json", is_json=True)


BOTH = Rule(older_than_seconds=86_400, max_bytes=10 << 30)


@pytest.mark.parametrize(
    ("rules", "state", "says"),
    [
        ([MONTH], LONG_AGO.but(is_kept=True), "it is kept: no rule deletes it"),
        ([MONTH], LONG_AGO.but(status=JobStatus.RUNNING), "decided when it has ended"),
        ([MONTH], LONG_AGO.but(claim="1 t"), "decided when it has ended"),
        ([replace(MONTH, queues=frozenset({"other"}))], LONG_AGO, "it stays: no rule fits it"),
        ([KEEP], LONG_AGO, "it stays, by rule 1"),
        (
            [replace(KEEP, queues=frozenset({"other"})), MONTH],
            LONG_AGO,
            "deleted from 2026-11-25 00:00:00 on, by rule 2",
        ),
        ([MONTH], LONG_AGO.but(log=None), "deleted from 2026-11-25 00:00:00 on, once its log is sealed, by rule 1"),
        ([Rule(max_bytes=5)], LONG_AGO, "deleted when newer jobs of the rule have 5B, by rule 1"),
        ([BOTH], LONG_AGO, "deleted from 2026-10-27 00:00:00 on or when newer jobs of the rule have 10GiB, by rule 1"),
        ([MONTH], LONG_AGO.but(end_time=datetime.max), "it stays, by rule 1"),
    ],
)
def test_what_is_said_of_a_job(rules: list[Rule], state: JobState, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rules will do with it, and which rule that is."""
    monkeypatch.setenv("TZ", "UTC")
    assert outlook(rules, "j", state) == says
