"""An embedded server outlives whoever started it, and shows nobody their variables."""

from pathlib import Path

import pytest

from ci_eventstore import RedisJobRepository


def environment_of(process_id: int) -> bytes:
    """Return the variables that a process was started with."""
    return Path(f"/proc/{process_id}/environ").read_bytes()


def parent_of(process_id: int) -> int:
    """Return a process's parent."""
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_server_has_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither has its watchdog."""
    monkeypatch.setenv("TOKEN", "hunter2")
    monkeypatch.setenv("CI_EVENTSTORE_URL", "redis://:hunter2@h")
    async with RedisJobRepository.from_url(f"embedded://{tmp_path / 'data'}") as repository:
        server = int((await repository.engine.nodes.all[0].info())["process_id"])
        assert b"hunter2" not in environment_of(server)
        watchdog = environment_of(parent_of(server))
        assert (b"PATH=" in watchdog, b"hunter2" in watchdog) == (True, False)
