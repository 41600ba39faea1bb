"""What a controller has of its machine: pauses while that can't run jobs, and a folder that doesn't outlive it."""

import shutil
import tempfile
from pathlib import Path

import pytest

from ci_eventstore.controllers import machine
from ci_eventstore.controllers.machine import (
    FIRST_PAUSE_SECONDS,
    FOLDER_PREFIX,
    LAST_PAUSE_SECONDS,
    MachineHealth,
    WorkFolder,
)
from ci_eventstore.errors import MachineError
from tests.leftovers import descriptors

ERROR = MachineError("no room")


def test_pauses_grow_to_their_limit_and_end_with_a_success() -> None:
    """One job is taken after each, to see whether it can be run."""
    health, now, pauses = MachineHealth(), 100.0, []
    assert health.allowed(8, now) == 8
    for _ in range(8):
        health.note_failure(ERROR, now, now + 0.5)
        now += 0.5
        assert health.allowed(8, now) == 0
        pauses.append(health.pause(now))
        now += pauses[-1]
        assert (health.pause(now), health.is_unfit, health.allowed(8, now)) == (0.0, True, 1)
    assert pauses == [FIRST_PAUSE_SECONDS * 2**number for number in range(6)] + [LAST_PAUSE_SECONDS] * 2
    health.note_success(now)
    assert (health.is_unfit, health.allowed(8, now)) == (False, 8)


def test_jobs_that_began_before_a_failure_say_nothing_of_now() -> None:
    """They neither make the pause longer, whenever they fail, nor end it by their success."""
    health = MachineHealth()
    health.note_failure(ERROR, 10.0, 20.0)
    until = 20.0 + health.pause(20.0)
    health.note_failure(ERROR, 15.0, until + 100.0)
    assert health.pause(until + 100.0) == 0.0
    health.note_success(19.0)
    assert health.is_unfit
    health.note_success(until)
    assert not health.is_unfit


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, as far as this process is concerned."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_goes_with_all_that_is_in_it(temporary: Path) -> None:
    """Folders that a command has made read-only, too."""
    with WorkFolder() as folder:
        job = folder.new()
        (job / "sub").mkdir()
        (job / "sub" / "file").touch()
        (job / "sub").chmod(0o500)
        assert job != folder.new()
        assert len(list(temporary.iterdir())) == 1
    assert list(temporary.iterdir()) == []


def test_what_a_killed_controller_left_is_removed(temporary: Path) -> None:
    """What one has that lives stays, and so does what isn't a controller's."""
    abandoned = temporary / f"{FOLDER_PREFIX}abandoned"
    (abandoned / "job").mkdir(parents=True)
    (temporary / f"{FOLDER_PREFIX}link").symlink_to(temporary / "other")
    (temporary / "other").mkdir()
    with WorkFolder() as first:
        job = first.new()
        with WorkFolder():
            assert job.exists()
    assert sorted(path.name for path in temporary.iterdir()) == [f"{FOLDER_PREFIX}link", "other"]


def test_a_folder_that_someone_has_removed_is_made_again(temporary: Path) -> None:
    """As a cleaner of temporary files does; the new one is locked as well, and goes as well."""
    with WorkFolder() as folder:
        shutil.rmtree(folder.new().parent)
        job = folder.new()
        assert job.is_dir()
        with WorkFolder():
            assert job.is_dir()
        assert folder.new().parent == job.parent
    assert list(temporary.iterdir()) == []


def test_no_descriptor_is_left_when_there_is_no_folder(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when it can't be made, nor when others remove it as it is made."""
    before = descriptors()
    (temporary / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "file"))
    with pytest.raises(OSError, match="Not a directory"):
        WorkFolder().__enter__()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    locked: list[Path] = []

    def lock(folder: Path, *, waits: bool = False) -> int | None:
        descriptor = lock_of_machine(folder, waits=waits)
        locked.append(folder)
        if len(locked) == 1:
            folder.rmdir()
        return descriptor

    lock_of_machine = machine._lock
    monkeypatch.setattr(machine, "_lock", lock)
    with WorkFolder() as folder:
        assert folder.new().is_dir()
    assert (len(locked), descriptors()) == (2, before)
