"""Partitions that are away with their server are one outage."""

import pytest

from ci_eventstore.connection.absence import report
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import StoreUnavailableError

TAGS = ["{ci:1}", "{ci:2}", "{ci:3}", "{ci:4}"]


async def test_a_server_that_is_away_is_logged_once_whatever_it_had(caplog: pytest.LogCaptureFixture) -> None:
    """And that all its partitions answer again, whoever asked for them; not that some do."""
    nodes = Nodes(from_url("redis+cluster://127.0.0.1:1"))
    away = {tag: StoreUnavailableError(f"{tag} is away") for tag in TAGS[:3]}
    report(nodes, TAGS, away)
    report(nodes, TAGS[1:2], away)
    report(nodes, TAGS[3:], {})
    report(nodes, TAGS[:2], {})
    assert caplog.messages == ["partitions are away: {ci:1} is away"]
    report(nodes, TAGS, {})
    report(nodes, TAGS, {})
    assert caplog.messages[1:] == ["the partitions that were away with their server answer again"]
    await nodes.close()
