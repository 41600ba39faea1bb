"""A controller's folder goes with it, or with the next controller."""

import tempfile
from pathlib import Path

import pytest

from ci_eventstore.controllers.work_folder import PREFIX, WorkFolder


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
    abandoned = temporary / f"{PREFIX}abandoned"
    (abandoned / "job").mkdir(parents=True)
    (temporary / f"{PREFIX}link").symlink_to(temporary / "other")
    (temporary / "other").mkdir()
    with WorkFolder() as first:
        job = first.new()
        with WorkFolder():
            assert job.exists()
    assert sorted(path.name for path in temporary.iterdir()) == [f"{PREFIX}link", "other"]
