"""What is said on channels, as controllers and followers hear it."""

import asyncio

from redis.asyncio import Redis

from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.repository import RedisJobRepository
from tests.fault_proxy import FaultProxy
from tests.integration.store.offers import Waiter, submit
from tests.servers import RealServer
from tests.waiting import wait_until


async def test_messages_go_on_behind_a_cut_and_end_with_the_server(own: RealServer, proxy: FaultProxy) -> None:
    """Channels are told together when they are listened to, also after a cut; nothing is heard once all is closed."""
    opened, heard = Nodes(from_url(proxy.url)), asyncio.Queue[tuple[str, bytes]]()
    subscription = opened.subscription(
        lambda channel, message: heard.put_nowait((channel, message)),
        lambda channels: heard.put_nowait((" ".join(channels), b"")),
    )
    subscription.listen("a", "b")
    async with asyncio.timeout(30), Redis(unix_socket_path=str(own.socket_path)) as admin:
        for _ in range(2):
            assert await heard.get() == ("a b", b"")
            await admin.publish("a", "one")
            await admin.publish("b", "two")
            assert [await heard.get(), await heard.get()] == [("a", b"one"), ("b", b"two")]
            proxy.cut_all()
        assert await heard.get() == ("a b", b"")
        await opened.close()
        await asyncio.sleep(0.2)
        assert await admin.publish("a", "three") == 0
        assert heard.empty()


async def test_a_listener_that_fails_is_tried_again(server: Nodes) -> None:
    """An error in what is done with a message ends nothing but the connection."""
    heard, listening = asyncio.Queue[bytes](), asyncio.Queue[list[str]]()

    def on_message(channel: str, message: bytes) -> None:
        heard.put_nowait(message)
        if message == b"bad":
            raise ValueError("bad")

    subscription = server.subscription(on_message, listening.put_nowait)
    subscription.listen("a")
    async with asyncio.timeout(30):
        for message in (b"bad", b"good"):
            await listening.get()
            await server.read("PUBLISH", "a", message)
            assert await heard.get() == message


async def test_a_controller_listens_to_all_partitions_by_one_command(own: RealServer, proxy: FaultProxy) -> None:
    """It notices once that it listens, so that it asks once, also after a cut; it hears of jobs of any partition."""
    async with asyncio.timeout(30), RedisJobRepository.from_url(proxy.url, partitions=64) as repository:
        waiter = Waiter(repository, "c1", "default", "other")
        waiter.claimer.listen()
        for count in (1, 2):
            await wait_until(lambda: len(waiter.heard) == 1)
            async with Redis(unix_socket_path=str(own.socket_path)) as admin:
                assert (await admin.info("commandstats"))["cmdstat_subscribe"]["calls"] == count
                assert len(await admin.pubsub_channels("{ci:*}:*")) == 3 * 64
            assert len(waiter.heard) == 1
            waiter.heard.clear()
            if count == 1:
                proxy.cut_all()
        await submit(repository, *"abcdefghijklmnopqrst")
        await wait_until(lambda: len(waiter.heard) == 20)
        await waiter.close()
        assert await repository.verify() == []
