"""The watchdog puts to disk what the server has written."""

import os
from pathlib import Path

import pytest

from ci_eventstore.embedded import watchdog


def test_all_files_that_are_appended_to_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are two while the server changes to a new one; base files are the server's own affair."""
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    for name in ("a.1.base.rdb", "a.1.incr.aof", "a.2.incr.aof", "a.manifest"):
        (folder / name).touch()
    synced: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    watchdog._sync()
    assert sorted(Path(path).name for path in synced) == ["a.1.incr.aof", "a.2.incr.aof"]


def test_before_the_first_file_there_is_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts has no file yet; that is no error, and nothing is synced."""
    synced: list[int] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", synced.append)
    watchdog._sync()
    assert synced == []
