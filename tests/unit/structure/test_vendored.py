"""The page's libraries are those of the registry, byte for byte, each with its licence."""

import json

import pytest

from tests.page.vendored import FILES, MODULES, PAGE, RECORD, find_folder, hash_file, make_icons, read_lock

LIBRARIES = sorted(FILES)
RECORDED = json.loads(RECORD.read_text())


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_the_recorded_one(library: str) -> None:
    """Its files have the recorded hashes, and the lock file has the version and the registry's hash of the record."""
    record = RECORDED[library]
    assert (record["version"], record["integrity"]) == read_lock(library)
    folder = find_folder(library)
    assert {name: hash_file(folder / name) for name in record["files"]} == record["files"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_has_no_other_files(library: str) -> None:
    """A file without a recorded hash would be nobody's."""
    folder = find_folder(library)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {name for name in RECORDED[library]["files"] if not name.startswith("..")}
    assert "LICENSE" in found


def test_there_are_no_other_libraries() -> None:
    """The page's folder of libraries has the recorded ones alone."""
    assert set((PAGE / "vendor").iterdir()) == {find_folder(library) for library in LIBRARIES}


def test_libraries_equal_what_npm_installed() -> None:
    """They equal the packages that npm compared with the registry's hashes, where `make check` has installed them."""
    if not (MODULES / ".installed").exists():
        return
    for library, files in FILES.items():
        for name, source in files.items():
            assert (find_folder(library) / name).read_bytes() == (MODULES / library / source).read_bytes()
    assert (PAGE / "icons.svg").read_text() == make_icons()
