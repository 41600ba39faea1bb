"""What a failed try means on the way to a partition's node: where the next one goes, and what else is done."""

from collections.abc import AsyncIterator

import pytest
from redis import exceptions

from ci_eventstore.connection.addresses import HostPort
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.failures import note_reply, note_unreached, outcome_of
from ci_eventstore.connection.link import Link
from ci_eventstore.connection.node import patience_of
from ci_eventstore.connection.outcomes import REDIRECTED, Kind, Outcome
from ci_eventstore.connection.routes import Asking, Route, Unserved
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.connection.topology import Redirection
from ci_eventstore.connection.way import Counters, Target

HERE, THERE = ("127.0.0.1", 1), ("127.0.0.2", 2)


class Recorder:
    """Stands in for the cluster of a route."""

    def __init__(self) -> None:
        self.redirections = list[Redirection]()
        self.doubted = list[HostPort | None]()
        self.route = Route("{ci:0}", "redis+cluster://h", Counters(), self.follow, self.doubted.append)

    def follow(self, redirection: Redirection) -> Target | None:
        self.redirections.append(redirection)
        return Unserved(redirection.slot) if redirection.is_asking else None


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    opened = Link(from_url("redis+cluster://127.0.0.1:1").at(*HERE), patience_of, Counters())
    yield opened
    await opened.close()


def replied(words: str) -> exceptions.RedisError:
    error = exceptions.ResponseError(words)
    note_reply(error, words)
    return error


def unreached() -> exceptions.RedisError:
    error = exceptions.ConnectionError("refused")
    note_unreached(error)
    return error


def after(recorder: Recorder, error: exceptions.RedisError, target: Target) -> tuple[Outcome, Target | None]:
    return recorder.route.after(error, outcome_of(error, Kind.SCRIPT), target, 0.0)


async def test_a_moved_slot_is_followed(link: Link) -> None:
    """The next try goes where the route leads by then; the one that was told so had no effect."""
    recorder = Recorder()
    assert after(recorder, replied("MOVED 7161 127.0.0.2:2"), link) == (REDIRECTED, None)
    assert recorder.redirections == [Redirection(7161, THERE, is_asking=False)]
    assert recorder.doubted == []


async def test_a_slot_that_is_on_its_way_is_asked_for_once(link: Link) -> None:
    """Only the next try goes there; also when that node, asked, says that it has to go on."""
    recorder = Recorder()
    outcome, target = after(recorder, replied("ASK 7161 :2"), Asking(link))
    assert outcome == REDIRECTED
    assert isinstance(target, Unserved)
    assert recorder.redirections == [Redirection(7161, (HERE[0], 2), is_asking=True)]


@pytest.mark.parametrize(
    ("error", "looks"),
    [
        (replied("TRYAGAIN Multiple keys request during rehashing of slot"), True),
        (replied("CLUSTERDOWN Hash slot not served"), True),
        (replied("READONLY You can't write against a read only replica."), True),
        (replied("MASTERDOWN Link with MASTER is down"), True),
        (replied("LOADING Redis is loading the dataset in memory"), True),
        (unreached(), True),
        (exceptions.TimeoutError("Timeout reading"), True),
        (exceptions.ConnectionError("Connection closed"), True),
        (replied("OOM command not allowed when used memory > 'maxmemory'."), False),
        (replied("BUSY Redis is busy running a script."), False),
        (replied("NOSCRIPT No matching script."), False),
        (replied("WRONGTYPE Operation against a key"), False),
        (replied("MOVED 7161"), False),
    ],
)
async def test_nodes_are_looked_for_when_a_slot_may_be_elsewhere(
    link: Link, error: exceptions.RedisError, looks: bool
) -> None:
    """The node that was asked is doubted; what the failure means stays as it is on one server."""
    recorder = Recorder()
    assert after(recorder, error, link) == (outcome_of(error, Kind.SCRIPT), None)
    assert recorder.doubted == [HERE] * looks
    assert recorder.redirections == []


async def test_a_slot_without_a_node_is_waited_for() -> None:
    """Nothing was sent, and nodes are looked for."""
    recorder, nowhere = Recorder(), Unserved(7161)
    with pytest.raises(exceptions.ClusterDownError) as raised:
        await nowhere.with_scripts("EVALSHA")
    outcome, target = after(recorder, raised.value, nowhere)
    assert (outcome, target) == (outcome_of(raised.value, Kind.SCRIPT), None)
    assert outcome.is_passing
    assert recorder.doubted == [None]


def test_scripts_for_a_cluster_publish_on_sharded_channels_and_name_one_key_more() -> None:
    """Nothing else is different."""
    script = load_script("ci_eventstore.facts", "drop_group")
    assert "'PUBLISH'" in script.source
    assert "'PUBLISH'" not in script.sharded.source
    assert script.sharded.source.count("'SPUBLISH'") == script.source.count("'PUBLISH'")
    assert "ARGV[last], KEYS[#KEYS] = nil, nil" in script.sharded.source
    assert script.sharded.sha != script.sha
    assert script.sharded is script.sharded
