"""A failure that lasts doesn't fill the log."""

import logging

import pytest

from ci_eventstore.claims.outage_log import OutageLog


def test_a_failure_is_logged_once_then_each_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that it is over; another one later is logged at once again."""
    now = [100.0]
    monkeypatch.setattr("ci_eventstore.claims.outage_log.time.monotonic", lambda: now[0])
    log = OutageLog(logging.getLogger("ci_eventstore.test"), "it fails: %s", "it works")
    log.worked()
    for _ in range(130):
        log.failed("away")
        now[0] += 1
    log.worked()
    log.worked()
    log.failed("full")
    assert caplog.messages == ["it fails: away"] * 3 + ["it works", "it fails: full"]


def test_a_failure_that_is_over_at_once_isnt_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor that it is over."""
    now = [100.0]
    monkeypatch.setattr("ci_eventstore.claims.outage_log.time.monotonic", lambda: now[0])
    log = OutageLog(logging.getLogger("ci_eventstore.test"), "it fails: %s", "it works", after_seconds=5)
    for seconds in (0, 4, 0, 6):
        log.failed("away")
        now[0] += seconds
        log.failed("away")
        log.worked()
    assert caplog.messages == ["it fails: away", "it works"]
