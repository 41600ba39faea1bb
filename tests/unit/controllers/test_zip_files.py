"""A zip file's directory is measured before it is loaded."""

import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ci_eventstore import zip_file
from ci_eventstore.controllers.project import check_zip, pack, unpack
from ci_eventstore.errors import ProjectError

MEBIBYTE = 1024 * 1024


def directory(count: int, comment: int = 0) -> bytes:
    """Return the directory of a zip file whose entries are all the same."""
    fields = (0x0201_4B50, 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, comment, 0, 0, 0, 0)
    return (struct.pack("<I6H3I5H2I", *fields) + b"a" + bytes(comment)) * count


def end(size: int, count: int) -> bytes:
    return struct.pack("<I4H2IH", 0x0605_4B50, 0, 0, count, count, size, 0, 0)


def end64(size: int, count: int) -> bytes:
    """Return the records of a zip file that is too big for the usual one."""
    record = struct.pack("<IQ2H2I4Q", 0x0606_4B50, 44, 45, 45, 0, 0, count, count, size, 0)
    return record + struct.pack("<IIQI", 0x0706_4B50, 0, size, 1) + end(0xFFFF_FFFF, 0xFFFF)


@pytest.mark.parametrize("ending", [end, end64])
@pytest.mark.parametrize(
    ("content", "claimed", "reason"),
    [
        (directory(400_000), 400_000, "more than 100,000 entries"),
        (directory(400_000), 1, "more than 100,000 entries"),
        (directory(2_000, 20_000), 2_000, "directory of more than 32 MiB"),
    ],
    ids=["honest", "lies", "comments"],
)
@pytest.mark.parametrize("use", [check_zip, lambda path: unpack(path, path.parent)], ids=["check", "unpack"])
def test_a_directory_that_is_too_big_costs_nothing(
    tmp_path: Path,
    ending: Callable[[int, int], bytes],
    content: bytes,
    claimed: int,
    reason: str,
    use: Callable[[Path], None],
) -> None:
    """However many entries it says it has: it is refused with no more memory than a directory may have."""
    path = tmp_path / "it.zip"
    path.write_bytes(content + ending(len(content), min(claimed, 65_535) if ending is end else claimed))
    assert zipfile.is_zipfile(path)
    tracemalloc.start()
    try:
        with pytest.raises(ProjectError, match=reason):
            use(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 34 * MEBIBYTE


@pytest.mark.parametrize("size", [0xFFFF_FFF0, 10**12])
def test_a_directory_that_is_not_there_costs_nothing(tmp_path: Path, size: int) -> None:
    """A size that is a lie makes nobody take that much memory."""
    path = tmp_path / "it.zip"
    path.write_bytes(directory(1) + (end(size, 1) if size < 2**32 else end64(size, 1)))
    tracemalloc.start()
    try:
        with pytest.raises(ProjectError, match="no zip file"):
            check_zip(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 34 * MEBIBYTE


def test_what_is_in_a_file_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are what the directory has, whatever stands in the files."""
    monkeypatch.setattr(zip_file, "MAX_ENTRIES", 2)
    path, target = tmp_path / "it.zip", tmp_path / "target"
    content = zip_file.ENTRY * 100_000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", content)
    target.mkdir()
    unpack(path, target)
    assert (target / "a").read_bytes() == content


def test_nothing_is_packed_that_would_not_be_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is too big is refused where it is made."""
    monkeypatch.setattr(zip_file, "MAX_DIRECTORY_BYTES", 1000)
    folder = tmp_path / "project"
    folder.mkdir()
    for number in range(5):
        (folder / (f"{number}" * 200)).touch()
    with pytest.raises(ProjectError, match="directory of more than"):
        pack(folder, tmp_path / "it.zip")
    assert not (tmp_path / "it.zip").exists()
