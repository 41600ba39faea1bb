"""Which jobs a policy of retention takes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ci_common.models import JobStatus
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import Reference
from ci_eventstore.history.retention import Policy
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
MONTH = Policy(older_than_seconds=30 * 86_400)


@pytest.mark.parametrize(
    ("policy", "state", "is_taken"),
    [
        (MONTH, LONG_AGO, True),
        (MONTH, replace(LONG_AGO, end_time=NOW - timedelta(days=29)), False),
        (MONTH, replace(LONG_AGO, end_time=NOW - timedelta(days=30)), True),
        (MONTH, replace(LONG_AGO, end_time=None), True),
        (MONTH, replace(LONG_AGO, status=JobStatus.RUNNING), False),
        (MONTH, replace(LONG_AGO, status=JobStatus.QUEUED), False),
        (MONTH, replace(LONG_AGO, claim="1 t"), False),
        (MONTH, replace(LONG_AGO, log=None), False),
        (MONTH, replace(LONG_AGO, is_kept=True), False),
        (MONTH, replace(LONG_AGO, is_kept=False), True),
        (MONTH, replace(LONG_AGO, position=8), False),
        (replace(MONTH, takes_unsealed=True), replace(LONG_AGO, log=None), True),
        (replace(MONTH, statuses=frozenset({JobStatus.FAILED})), LONG_AGO, False),
        (replace(MONTH, statuses=frozenset({JobStatus.COMPLETED})), LONG_AGO, True),
        (replace(MONTH, queue="other"), LONG_AGO, False),
        (replace(MONTH, queue="default"), LONG_AGO, True),
    ],
)
def test_what_a_policy_takes(policy: Policy, state: JobState, is_taken: bool) -> None:
    """By the end, the status, the queue and where the log lies; never what runs."""
    assert policy.takes("j", state, NOW) is is_taken


@pytest.mark.parametrize("age", [-1, float("nan"), 1e12, None, "30d"])
def test_an_age_that_is_none(age: float) -> None:
    """Refused, before anything is deleted."""
    with pytest.raises(ConfigurationError):
        Policy(older_than_seconds=age)


def test_statuses_that_have_not_ended() -> None:
    """No policy takes a job that runs."""
    with pytest.raises(ConfigurationError, match="cancel it first"):
        Policy(older_than_seconds=0, statuses=frozenset({JobStatus.RUNNING}))
