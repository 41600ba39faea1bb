"""The ways that calls take through our own functions, found by running each once; `make docs` writes them down."""

import ast
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ci_common.models import Job, JobEvent
from ci_eventstore.controllers import Controller
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import create_app
from tests.documents import ARCHITECTURE, with_part
from tests.integration.web.serving import create_account, serve
from tests.servers import RealServer, find_valkey
from tests.unit.structure.source import SRC

OURS = str(SRC / "ci_eventstore")
SENDS = "Pipeline.execute"
#: Functions that are on their way, outermost first.
Stack = Sequence[CodeType]


def stack_of(frame: FrameType | None) -> list[CodeType]:
    """Return our own functions that a frame was called through, and that of the frame itself."""
    found = list[CodeType]()
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS) and not frame.f_code.co_name.startswith("<"):
            found.append(frame.f_code)
        frame = frame.f_back
    return found[::-1]


@contextmanager
def recorded(note: Callable[[FrameType], None]) -> Iterator[None]:
    """Call `note` with each frame of ours that begins or goes on in this thread."""

    def on_event(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            note(frame)

    sys.setprofile(on_event)
    try:
        yield
    finally:
        sys.setprofile(None)


async def to_the_server(act: Callable[[], Awaitable[object]], through: str) -> list[CodeType]:
    """Return the functions through which an action reaches the server when it first comes through one of them.

    A task is reached from the function that began it.
    """
    loop, begun = asyncio.get_running_loop(), dict[asyncio.Task[Any], Stack]()
    found = list[CodeType]()

    def stack_now(frame: FrameType) -> Stack:
        task = asyncio.current_task()
        return [*(begun.get(task, ()) if task else ()), *stack_of(frame)]

    def begin(its_loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=its_loop, **options)
        begun[task] = stack_now(sys._getframe(1))
        return task

    def note(frame: FrameType) -> None:
        if not found and frame.f_code.co_qualname == SENDS:
            stack = stack_now(frame)
            if any(code.co_qualname == through for code in stack):
                found.extend(stack)

    loop.set_task_factory(begin)
    try:
        with recorded(note):
            await act()
    finally:
        loop.set_task_factory(None)
    return found


async def to_a_stream(repository: RedisJobRepository, url: str) -> list[CodeType]:
    """Return the functions through which a live event comes, from the server's message to a client of the web server.

    They are those that each of three events comes through, in the order of the first: others have other reasons.
    """
    ada = await create_account(repository, "ada")
    await repository.create_job(Job(id="live", status="running", user_id=ada.user_id))

    async def append(text: str) -> None:
        async with RedisJobRepository.from_url(url) as other:
            await other.add_event("live", JobEvent("log", text))

    walks = list[list[CodeType]]()
    async with (
        serve(create_app(repository)) as web,
        web.client(ada) as client,
        client.stream("GET", "/jobs/live/stream") as response,
    ):
        lines = response.aiter_lines()
        for text in ("first", "second", "third", "fourth"):
            walk = dict[CodeType, None]()
            with recorded(lambda frame, walk=walk: walk.update({frame.f_code: None})):  # type: ignore[misc]
                # In a thread of its own, whose frames aren't recorded.
                await asyncio.to_thread(asyncio.run, append(text))
                async for line in lines:
                    if text in line:
                        break
            walks.append([code for code in walk if not code.co_name.startswith("<")])
    # Whoever reads the first one may have come before it or after.
    return [code for code in walks[1] if all(code in walk for walk in walks[2:])]


async def find_walks(url: str) -> dict[str, list[CodeType]]:
    """Return the functions that each walk comes through, on an empty server."""
    async with RedisJobRepository.from_url(url) as repository:
        await repository.create_job(Job(id="a", status="running"))

        async def write() -> None:
            async with repository.log_writer("a") as log:
                await log.write(b"line\n")

        async def claim() -> None:
            async with Controller(repository) as controller, aclosing(controller.claims()) as claims:
                async for _ in claims:
                    break

        line = JobEvent("log", "line\n")
        return {
            "A log line: `add_event`": await to_the_server(lambda: repository.add_event("a", line), "append_logs"),
            "A line of a `LogWriter`, from the task that sends what `write` has masked": await to_the_server(
                write, "append_logs"
            ),
            "A submit: `create_job`": await to_the_server(
                lambda: repository.create_job(Job(id="b", status="queued")), "create_waiting"
            ),
            "A claim: `Controller.claims`": await to_the_server(claim, "claim"),
            "A live event, from the server's message to a client of the web server": await to_a_stream(repository, url),
        }


def sentences_of(path: str) -> dict[str, str]:
    """Return the first sentence of each function's docstring in a file, by qualified name."""
    found = dict[str, str]()

    def look_into(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{outer}{child.name}"
                sentence = (ast.get_docstring(child) or "").partition("\n")[0].partition(". ")[0]
                found[name] = sentence.rstrip(".:")
                look_into(child, f"{name}." if isinstance(child, ast.ClassDef) else f"{name}.<locals>.")

    look_into(ast.parse(Path(path).read_text()), "")
    return found


def render(walks: Mapping[str, Sequence[CodeType]]) -> str:
    """Return a table for each walk."""
    parts = list[str]()
    for title, walk in walks.items():
        parts += [f"{title}:\n", "| function | in | what it does |", "|---|---|---|"]
        for code in walk:
            path, name = code.co_filename, code.co_qualname
            sentence = sentences_of(path).get(name, "").replace("|", "\\|")
            parts.append(f"| `{name.replace('.<locals>', '')}` | `{Path(path).relative_to(OURS)}` | {sentence} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def page_with_walks(url: str) -> str:
    """Return the page of the architecture with the walks as they are now."""
    return with_part(ARCHITECTURE.read_text(), "walks", render(asyncio.run(find_walks(url))))


if __name__ == "__main__":
    with RealServer(find_valkey(), "appendonly no") as server:
        ARCHITECTURE.write_text(page_with_walks(server.url))
