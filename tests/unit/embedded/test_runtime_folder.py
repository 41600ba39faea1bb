"""Where the socket is put, and who may use that place."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci_eventstore.embedded.runtime_folder import (
    LONGEST_SOCKET_PATH,
    default_socket,
    fault_of,
    make_private,
    record_socket,
    recorded_socket,
)
from ci_eventstore.errors import EmbeddedServerError

ME = os.geteuid()


@pytest.fixture
def session() -> Iterator[Path]:
    """A login session's folder with a short path."""
    folder = Path(f"/tmp/ci-test-{os.getpid()}")
    folder.mkdir(mode=0o700)
    yield folder
    folder.rmdir()


def status(mode: int, user_id: int = ME) -> os.stat_result:
    """Return what the system says of a file."""
    return os.stat_result((mode, 0, 0, 1, user_id, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (status(stat.S_IFDIR | 0o700), None),
        (status(stat.S_IFDIR | 0o500), None),
        (status(stat.S_IFREG | 0o700), "isn't a folder"),
        (status(stat.S_IFLNK | 0o777), "isn't a folder"),
        (status(stat.S_IFDIR | 0o700, ME + 1), f"belongs to user {ME + 1}, not to {ME}"),
        (status(stat.S_IFDIR | 0o701), "may be used by others (mode 0701)"),
        (status(stat.S_IFDIR | 0o1777), "may be used by others (mode 1777)"),
    ],
)
def test_what_is_private(found: os.stat_result, fault: str | None) -> None:
    """Only a folder of the user's own that nobody else may use is."""
    assert fault_of(found, ME) == fault


def test_the_session_folder_is_preferred(session: Path) -> None:
    """Without a usable one, the socket is under /tmp, by user."""
    data = Path("/data")
    assert default_socket(data, {"XDG_RUNTIME_DIR": str(session)}, ME).is_relative_to(session / "ci-eventstore")
    for unusable in ("", "relative", "/nowhere/at/all", "/etc", "/dev/null"):
        assert default_socket(data, {"XDG_RUNTIME_DIR": unusable}, ME).parent.parent == Path(f"/tmp/ci-eventstore-{ME}")
    assert default_socket(data, {}, ME) == default_socket(data, {"XDG_RUNTIME_DIR": ""}, ME)


def test_another_users_session_folder_is_left_alone(session: Path) -> None:
    """After sudo, XDG_RUNTIME_DIR may still name the folder of who called it."""
    assert not default_socket(Path("/data"), {"XDG_RUNTIME_DIR": str(session)}, ME + 1).is_relative_to(session)


def test_the_path_is_short_enough(session: Path) -> None:
    """A long session folder isn't used, and the length of the data directory doesn't matter."""
    deep = session / ("x" * 60)
    deep.mkdir(mode=0o700)
    try:
        found = default_socket(Path("/" + "y" * 4000), {"XDG_RUNTIME_DIR": str(deep)}, ME)
    finally:
        deep.rmdir()
    assert not found.is_relative_to(session)
    assert len(os.fsencode(found)) <= LONGEST_SOCKET_PATH


def test_each_directory_has_its_own_socket() -> None:
    """Also one whose name isn't valid UTF-8."""
    names = [Path("/a"), Path("/b"), Path(os.fsdecode(b"/\xff"))]
    assert len({default_socket(name, {}, ME) for name in names}) == len(names)


def test_a_record_is_found_again(tmp_path: Path) -> None:
    """It holds while its folders are private; a missing or damaged one is no record."""
    assert recorded_socket(tmp_path, ME) is None
    socket = tmp_path / "session" / default_socket(tmp_path, {}, ME).relative_to(f"/tmp/ci-eventstore-{ME}")
    record_socket(tmp_path, socket)
    assert recorded_socket(tmp_path, ME) is None
    make_private(socket, ME)
    assert recorded_socket(tmp_path, ME) == socket
    (tmp_path / "session").chmod(0o755)
    assert recorded_socket(tmp_path, ME) is None
    (tmp_path / "socket").write_bytes(b"/a\0b\xff")
    assert recorded_socket(tmp_path, ME) is None


def test_a_copy_does_not_lead_to_the_original(tmp_path: Path) -> None:
    """The record in a copied data directory is for another one."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    socket = tmp_path / "session" / default_socket(original, {}, ME).relative_to(f"/tmp/ci-eventstore-{ME}")
    make_private(socket, ME)
    record_socket(original, socket)
    shutil.copytree(original, copy)
    assert (recorded_socket(original, ME), recorded_socket(copy, ME)) == (socket, None)


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    """What isn't a folder is named."""
    (tmp_path / "a").write_text("")
    with pytest.raises(EmbeddedServerError, match=f"{tmp_path}/a isn't a folder"):
        make_private(tmp_path / "a" / "b" / "server.sock", ME)
