"""Tasks that nobody waits for, and work that its caller's cancellation doesn't break off."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar


def begin(work: Coroutine[Any, Any, None], logger: logging.Logger, what: str) -> "asyncio.Task[None]":
    """Begin work that nobody waits for; an error that ends it is logged with `what` it should do.

    Whoever calls this keeps the task, and cancels it.
    """

    def note_end(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", what, exc_info=error)

    task = asyncio.create_task(work)
    task.add_done_callback(note_end)
    return task


T = TypeVar("T")


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do some works at the same time, and return their results in their order.

    The first error is raised once the other works have ended, which are cancelled: none goes on after this call.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def finish(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """Do some work to its end and return its result; cancellations wait for that, then go on; each calls `on_cancel`.

    When the caller was cancelled, the result is lost: work that makes something has to keep it where the caller finds
    it. The work has to be short, or to be told in another way to be quick.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            # If the work itself was cancelled, `task.result()` raises that below.
            cancelled = cancelled or error
            on_cancel()
        except Exception:  # noqa: BLE001 - it is the task's, which is asked below
            break
    if cancelled is None or task.cancelled():
        return task.result()
    if not task.cancelled() and task.exception() is not None:
        # Nobody else would see it.
        cancelled.__context__ = task.exception()
    raise cancelled
