"""A failure that lasts doesn't fill the log."""

import logging

import pytest

from ci_eventstore.connection.outage_log import MOST_KINDS, OutageLog, Outages


def test_a_failure_is_logged_once_then_each_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that it is over; another one a minute later is logged at once again, one that comes sooner isn't."""
    now = [100.0]
    monkeypatch.setattr("ci_eventstore.connection.outage_log.time.monotonic", lambda: now[0])
    log = OutageLog(logging.getLogger("ci_eventstore.test"), "it fails: %s", "it works")
    log.worked()
    for _ in range(130):
        log.failed("away")
        now[0] += 1
    log.worked()
    log.worked()
    log.failed("again")
    log.worked()
    now[0] += 60
    log.failed("full")
    assert caplog.messages == ["it fails: away"] * 3 + ["it works", "it fails: full"]


def test_where_some_fail_and_others_succeed_there_is_one_line_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each success isn't the end of an outage, and each failure isn't the beginning of one."""
    now = [100.0]
    monkeypatch.setattr("ci_eventstore.connection.outage_log.time.monotonic", lambda: now[0])
    log = OutageLog(logging.getLogger("ci_eventstore.test"), "it fails: %s", "it works")
    for _ in range(1300):
        log.failed("away")
        log.worked()
        now[0] += 0.1
    assert caplog.messages == ["it fails: away", "it works"] * 3


def test_all_who_use_a_server_share_what_they_say(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each message and kind of failure, and the traceback where there is one."""
    outages, logger = Outages(), logging.getLogger("ci_eventstore.test")
    for _ in range(3):
        outages.of(logger, "it fails: %s").failed("away")
        outages.of(logger, "it fails: %s", kind="full").failed("full")
        outages.of(logger, "a mistake: %s").failed("x", traceback=ValueError("x"))
    assert caplog.messages == ["it fails: away", "it fails: full", "a mistake: x"]
    assert caplog.records[2].exc_info is not None
    for number in range(MOST_KINDS + 1):
        outages.of(logger, "it fails: %s", kind=str(number))
    assert len(outages._logs) <= MOST_KINDS


def test_a_failure_that_is_over_at_once_isnt_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor that it is over."""
    now = [100.0]
    monkeypatch.setattr("ci_eventstore.connection.outage_log.time.monotonic", lambda: now[0])
    log = OutageLog(logging.getLogger("ci_eventstore.test"), "it fails: %s", "it works", after_seconds=5)
    for seconds in (0, 4, 0, 6):
        log.failed("away")
        now[0] += seconds
        log.failed("away")
        log.worked()
    assert caplog.messages == ["it fails: away", "it works"]
