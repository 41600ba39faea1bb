"""What a zip file says about itself isn't believed."""

import errno
import os
import zipfile
from pathlib import Path

import pytest

from ci_eventstore import zip_file
from ci_eventstore.controllers import project
from ci_eventstore.controllers.project import check_zip, pack, unpack
from ci_eventstore.errors import MachineError, ProjectError


def zipped(folder: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip file."""
    path = folder / "it.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def target(folder: Path) -> Path:
    """Return a new folder."""
    place = folder / "target"
    place.mkdir()
    return place


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is much bigger than its zip file isn't unpacked, however the bytes are spread."""
    monkeypatch.setattr(project, "FREE_BYTES", 1000)
    monkeypatch.setattr(project, "PIECE_BYTES", 1000)
    path = zipped(tmp_path, {"a": bytes(1_000_000), "b": bytes(1_000_000)})
    with pytest.raises(ProjectError, match="200 times what its zip file has"):
        unpack(path, target(tmp_path))
    assert sum(file.stat().st_size for file in (tmp_path / "target").iterdir()) <= 200 * path.stat().st_size


def test_a_size_that_is_a_lie_is_refused(tmp_path: Path) -> None:
    """An entry that says it is small ends where it says, and then its checksum is wrong."""
    path = zipped(tmp_path, {"a": bytes(100_000)})
    data = path.read_bytes()
    path.write_bytes(data.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ProjectError, match="damaged"):
        unpack(path, target(tmp_path))


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a project is packed, and when it is unpacked."""
    monkeypatch.setattr(zip_file, "MAX_ENTRIES", 2)
    with pytest.raises(ProjectError, match="more than 2 entries"):
        unpack(zipped(tmp_path, {"a": b"", "b": b"", "c": b""}), target(tmp_path))
    for name in "abc":
        (tmp_path / "target" / name).touch()
    with pytest.raises(ProjectError, match="more than 10 GiB or 2 entries"):
        pack(tmp_path / "target", tmp_path / "packed.zip")
    assert not (tmp_path / "packed.zip").exists()


def test_too_many_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted as they come."""
    monkeypatch.setattr(project, "MAX_BYTES", 100)
    with pytest.raises(ProjectError, match="it has more than"):
        unpack(zipped(tmp_path, {"a": b"x" * 60, "b": b"x" * 60}, zipfile.ZIP_STORED), target(tmp_path))


@pytest.mark.parametrize("name", ["..", "a/../../b", "/a", "..\\a", "a/.."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    """Before anything is written."""
    with pytest.raises(ProjectError, match="leads out of the folder"):
        unpack(zipped(tmp_path, {name: b"x"}), target(tmp_path))
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """The second one doesn't replace the first."""
    path = tmp_path / "it.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "first")
        archive.writestr("a", "second")
    with pytest.raises(ProjectError, match="'a' is in it twice"):
        unpack(path, target(tmp_path))


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    """And said with the file's path."""
    path = zipped(tmp_path, {"a": b"", "a/b": b""})
    with pytest.raises(ProjectError, match=str(path)):
        unpack(path, target(tmp_path))


def test_damaged_and_encrypted_files_are_refused(tmp_path: Path) -> None:
    """Whatever the library says of them."""
    path = zipped(tmp_path, {"a": b"some text" * 100})
    whole = path.read_bytes()
    for damaged in (
        whole[:100],
        b"",
        whole.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    ):
        path.write_bytes(damaged)
        place = tmp_path / f"target-{len(damaged)}-{damaged == whole}"
        place.mkdir(exist_ok=True)
        with pytest.raises(ProjectError, match="damaged"):
            unpack(path, place)


def test_unpacking_ends_when_it_is_stopped(tmp_path: Path) -> None:
    """Between two pieces."""
    with pytest.raises(ProjectError, match="it was stopped"):
        unpack(zipped(tmp_path, {"a": b"x"}), target(tmp_path), lambda: True)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    """A FIFO would wait for whoever writes to it, for ever; a device may do anything."""
    path = {"fifo": tmp_path / "fifo", "device": Path("/dev/zero"), "folder": tmp_path}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(ProjectError, match=f"{path} is not a regular file"):
        unpack(path, target(tmp_path))
    with pytest.raises(ProjectError, match="is not a regular file"):
        check_zip(path)


def test_a_link_to_a_project_is_one(tmp_path: Path) -> None:
    """The file that it leads to is read."""
    (tmp_path / "link").symlink_to(zipped(tmp_path, {"a": b"1"}))
    unpack(tmp_path / "link", target(tmp_path))
    assert (tmp_path / "target" / "a").read_bytes() == b"1"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, MachineError), (errno.ENAMETOOLONG, ProjectError)])
def test_a_full_disk_is_not_the_projects_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    """Another machine may have room; a name that is too long is too long everywhere."""

    def create(path: Path, mode: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(project, "_create", create)
    with pytest.raises(kind, match=os.strerror(number)):
        unpack(zipped(tmp_path, {"a": b"1"}), target(tmp_path))
