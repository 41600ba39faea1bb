"""Users with the least rights on a cluster: those of the document are enough, and each one that is missing is named."""

import re
from collections.abc import Iterator

import pytest

from ci_common.models import APIKey, Job, JobEvent, User, utc_now
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.controller import Controller
from ci_eventstore.errors import MissingRightsError
from ci_eventstore.repository import RedisJobRepository
from tests.deployments import Cluster, running_cluster
from tests.integration.store.test_rights import DOCUMENT, LINES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

#: What every user gets in addition, and what none needs.
[ADDED] = re.findall(r"^    (\+cluster\|slots .*)$", DOCUMENT.read_text(), re.MULTILINE)
DROPPED = ("+subscribe", "+unsubscribe", "+publish", "+pubsub|numsub")
OF_WRITERS = ("+spublish", "+pubsub|shardnumsub", "~{ci:accounts}:never")


def rules_of(name: str) -> list[str]:
    """Return the rules of a user as the document has them for a cluster."""
    line = LINES[name].replace("PASSWORD", "sesame").replace("~{ci:0}:*", "~{ci:[0-9]*")
    added = [rule for rule in ADDED.split() if name != "ci-reader" or rule not in OF_WRITERS]
    return [rule for rule in line.split() if rule not in DROPPED] + added


@pytest.fixture(scope="module", params=[pytest.param("redis", marks=pytest.mark.needs("redis7")), "valkey"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three nodes that know each user of the document."""
    with running_cluster(masters=3, replicas=0, binary=request.param) as started:
        for node in started.nodes:
            for name in LINES:
                node.ask("ACL", "SETUSER", name, "reset", *rules_of(name))
        yield started


def url_of(cluster: Cluster, user: str) -> str:
    return cluster.url.replace("://", f"://{user}:sesame@")


def refused(cluster: Cluster) -> list[object]:
    """Return what the nodes have refused since the last call."""
    found = list[object]()
    for node in cluster.nodes:
        found += [entry["object"] for entry in node.ask("ACL", "LOG") if entry["object"] != "client|setinfo"]
        node.ask("ACL", "LOG", "RESET")
    return found


async def test_each_user_can_do_what_it_is_for(cluster: Cluster) -> None:
    """A server has users, jobs and followers, a controller runs jobs, a reader follows; nothing of it is refused."""
    async with RedisJobRepository.from_url(url_of(cluster, "ci-server")) as server:
        await server.create_user(User(id="ada", name="Ada", email="ada@example.com", created_at=utc_now()))
        await server.create_api_key(APIKey(id="key", user_id="ada", key_hash="h", name="n", created_at=utc_now()))
        for number in range(8):
            await server.create_job(Job(id=f"j{number}", status="queued", user_id="ada"))
        async with (
            RedisJobRepository.from_url(url_of(cluster, "ci-controller")) as working,
            RedisJobRepository.from_url(url_of(cluster, "ci-reader"), access="read") as reader,
            Controller(working) as controller,
        ):
            done = 0

            async def handle(job: ClaimedJob) -> bool:
                nonlocal done
                await job.log.write("line\n")
                done += 1
                if done == 8:
                    controller.stop()
                return True

            await controller.run(handle)
            for number in range(8):
                events = [event async for event in reader.follow_events(f"j{number}")]
                assert [event.type for event in events] == ["log", "complete"]
            assert len(await reader.list_jobs()) == 8
            await working.create_job(Job(id="followed", status="running"))
            following = reader.follow_events("followed")
            await working.add_event("followed", JobEvent("log", "line\n"))
            assert (await anext(following)).data == "line\n"
            await following.aclose()
        assert await server.verify() == []
        assert (await server.rebuild()) == []
    assert refused(cluster) == []


@pytest.mark.parametrize(
    ("right", "named"),
    [
        ("+cluster|slots", "cluster"),
        ("~{ci:[0-9]*", "~{ci:63}:job:*"),
        ("~{ci:accounts}:never", "+evalsha on ~{ci:accounts}:never"),
        ("+xadd", "+xadd"),
        *((right, right) for right in ("+asking", "+ssubscribe", "+spublish", "+pubsub|shardnumsub")),
    ],
)
async def test_a_right_that_is_missing_is_named(cluster: Cluster, right: str, named: str) -> None:
    """When the store is opened, whichever node has what it is for."""
    async with RedisJobRepository.from_url(url_of(cluster, "ci-server")):
        pass
    assert right in rules_of("ci-controller")
    rules = [rule for rule in rules_of("ci-controller") if rule != right]
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", "lacking", "reset", *rules)
    with pytest.raises(MissingRightsError) as caught:
        await RedisJobRepository.from_url(url_of(cluster, "lacking")).initialize()
    assert named in str(caught.value)
    refused(cluster)
