"""A controller's folder goes with it, or with the next controller."""

import shutil
import tempfile
from pathlib import Path

import pytest

from ci_eventstore.controllers import machine
from ci_eventstore.controllers.machine import FOLDER_PREFIX, WorkFolder
from tests.leftovers import descriptors


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
