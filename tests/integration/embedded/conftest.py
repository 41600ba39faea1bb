"""What the tests of the embedded server share: each ends without a process left behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ci_eventstore.embedded import EmbeddedServer
from tests.integration.embedded.children import Child
from tests.integration.embedded.processes import kill, processes_in
from tests.servers import wait_until


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A data directory that isn't there yet; at the end nobody may be at work in it."""
    path = tmp_path / "data"
    yield path
    try:
        wait_until(lambda: not processes_in(path), "the end of all processes", 20)
    finally:
        for pid in processes_in(path):
            kill(pid)


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., Child]]:
    """Start programs of this folder on the data directory."""
    children: list[Child] = []

    def begin(program: str = "user_program", *arguments: str, **environment: str) -> Child:
        children.append(Child(program, directory, *arguments, **environment))
        return children[-1]

    yield begin
    for child in children:
        child.close()


@pytest.fixture
def server(directory: Path) -> Iterator[EmbeddedServer]:
    """The data directory's server, as the test's own process uses it."""
    used = EmbeddedServer(directory)
    yield used
    used.release()
