"""Send webhooks, and be killed at a call of a script; given the store's URL, and the call's number.

Before the call is sent if the number is odd, once it is answered if it is even.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from ci_eventstore.connection.nodes import Nodes
from tests.integration.webhooks.sender_program import main


def kill_at(number: int) -> None:
    """Have this process killed at a call."""
    run, count = Nodes.run, 0

    async def counted(self: Nodes, *call: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        mine = count
        if mine == number and number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        reply = await run(self, *call, **options)
        if mine == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return reply

    Nodes.run = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    kill_at(int(sys.argv[2]))
    asyncio.run(main(sys.argv[1]))
