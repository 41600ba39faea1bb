"""What is said on channels, as controllers hear it."""

import asyncio

from redis.asyncio import Redis

from ci_eventstore.server.client import Server
from ci_eventstore.server.deployments import from_url
from tests.fault_proxy import FaultProxy
from tests.servers import RealServer


async def test_messages_go_on_behind_a_cut_and_end_with_the_server(own: RealServer, proxy: FaultProxy) -> None:
    """Each channel is told when it is listened to, and again after a cut; nobody waits once all is closed."""
    opened = Server(from_url(proxy.url))
    messages = opened.messages(["a", "b"])
    async with asyncio.timeout(30), Redis(unix_socket_path=str(own.socket_path)) as admin:
        for _ in range(2):
            assert [await anext(messages) for _ in range(2)] == [("", "")] * 2
            await admin.publish("a", "one")
            await admin.publish("b", "two")
            assert [await anext(messages) for _ in range(2)] == [("a", "one"), ("b", "two")]
            proxy.cut_all()
        await anext(messages)
        await opened.close()
        assert [message async for message in messages if message != ("", "")] == []
