"""The logs to look at: a real one, made by a run of a large public package's tests, and a generated one.

The real one is a run of SQLAlchemy's tests, in colour, with all that the package logs: statements, rows, mappers. It is
made once and kept in `build/page`; as many lines as are asked for are taken of it.
"""

import mmap
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.texts import generated_lines

FOLDER = Path(__file__).parents[2] / "build" / "page"
PACKAGE, VERSION = "sqlalchemy", "2.0.45"
#: pytest 9 refuses some of its tests.
NEEDS = ["pytest<9", "typing_extensions", "greenlet"]
TESTS = ["test/orm", "test/engine", "test/sql", "test/ext", "test/base"]
PYTEST = ["-m", "pytest", "-v", "-s", "--color=yes", "--log-debug=sqlalchemy", "-p", "no:cacheprovider", *TESTS]
#: In a generated log, all lines of a group.
GROUP_LINES = 10_000


@dataclass(frozen=True, slots=True)
class Log:
    """A text, in a file, that a job is to have printed."""

    name: str
    path: Path
    lines: int
    #: It stands in one line of the log, near its end.
    rare: str
    rare_line: int


def real_log(lines: int) -> Log:
    """Return the first `lines` lines that a run of tests printed; RuntimeError if it printed fewer."""
    path = FOLDER / f"{PACKAGE}-{lines}.log"
    if not path.exists():
        _write(path, _printed_by_tests(), lines)
    return _with_rare_text(f"{PACKAGE} {VERSION}'s tests", path, lines)


def generated_log(lines: int) -> Log:
    """Return a log of `lines` lines, always the same."""
    path = FOLDER / f"generated-{lines}.log"
    if not path.exists():
        _write(path, _generated(), lines)
    return _with_rare_text("generated", path, lines)


def _write(path: Path, lines: Iterator[bytes], count: int) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    part, written = path.with_suffix(".part"), 0
    with part.open("wb") as file:
        for line in islice(lines, count):
            file.write(line)
            written += 1
    if written < count:
        raise RuntimeError(f"{path.name}: there are only {written:,} lines")
    part.rename(path)


def _generated() -> Iterator[bytes]:
    seed = 0
    while True:
        seed += 1
        yield f"::group::part {seed}\n".encode()
        yield from (f"{line}\n".encode() for line in generated_lines(GROUP_LINES - 2, seed))
        yield b"::endgroup::\n"


def _printed_by_tests() -> Iterator[bytes]:
    source, python = _source(), _environment()
    command: list[str | Path] = [python, *PYTEST]
    with subprocess.Popen(command, cwd=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        try:
            yield from process.stdout
        finally:
            process.kill()


def _source() -> Path:
    """Return the folder of the package's source with its tests."""
    folder = FOLDER / f"{PACKAGE}-{VERSION}"
    if not folder.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        _pip(sys.executable, "download", "--no-deps", "--no-binary", PACKAGE, "-d", FOLDER, f"{PACKAGE}=={VERSION}")
        with tarfile.open(FOLDER / f"{PACKAGE}-{VERSION}.tar.gz") as packed:
            packed.extractall(FOLDER, filter="data")
    return folder


def _environment() -> Path:
    """Return the Python of an environment with what the package's tests need."""
    folder = FOLDER / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        _pip(python, "install", *NEEDS)
    return python


def _pip(python: str | Path, *arguments: str | Path) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


def _with_rare_text(name: str, path: Path, lines: int) -> Log:
    """Find a line in the last tenth of which no other line has the text."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        start = text.find(b"\n", len(text) * 95 // 100) + 1
        while start and start < len(text):
            end = text.find(b"\n", start)
            line = text[start:end]
            if _is_plain(line) and text.find(line) == start and text.find(line, end) < 0:
                return Log(name, path, lines, line.decode().strip(), _line_number(text, start))
            start = end + 1
    raise RuntimeError(f"{path.name} has no line that is like no other")


def _is_plain(line: bytes) -> bool:
    return 20 < len(line) < 80 and line.isascii() and line.decode().isprintable()


def _line_number(text: mmap.mmap, place: int) -> int:
    number = 1
    for start in range(0, place, 1 << 20):
        number += text[start : min(start + (1 << 20), place)].count(b"\n")
    return number
