"""The walks in `docs/architecture.md` are those that calls take."""

import pytest

from tests.documents import ARCHITECTURE
from tests.servers import RealServer, find_valkey
from tests.walks import page_with_walks


@pytest.mark.slow  # it opens a controller and a web server, and follows four events
def test_calls_walk_as_documented() -> None:
    """A log line, a submit, a claim and a live event come through the functions that the document lists."""
    with RealServer(find_valkey(), "appendonly no") as server:
        assert page_with_walks(server.url).splitlines() == ARCHITECTURE.read_text().splitlines(), "run `make docs`"
