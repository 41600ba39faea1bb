"""The built wheel, in a clean virtual environment, is all that a user's typed program needs."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from ci_eventstore.web.page_routes import FOLDER as PAGE
from tests.unit.structure.source import ROOT, SRC

PROGRAM = Path(__file__).with_name("typed_program.py")
#: Installing takes seconds, more where the package index is slow.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str | Path, folder: Path) -> str:
    """Run a command outside of the project's folder, and without its settings; return what it prints."""
    hidden = {"PYTHONPATH", "MYPYPATH", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


def clean_python(wheel: Path, folder: Path) -> Path:
    """Make a virtual environment that has the wheel and its core dependencies, no more; return its interpreter."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, folder=folder)
    return python


def test_the_wheel_has_everything_the_code_needs(wheel: Path) -> None:
    """Every module and script of the source, both type markers and the page are in it, and nothing else."""
    sources = {str(path.relative_to(SRC)) for pattern in ("*.py", "*.lua", "py.typed") for path in SRC.rglob(pattern)}
    # Types of libraries are for `tsc` alone.
    page = (path for path in PAGE.rglob("*") if path.is_file() and not path.name.endswith(".d.ts"))
    sources |= {str(path.relative_to(SRC)) for path in page}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {"ci_common/py.typed", "ci_eventstore/py.typed", "ci_eventstore/web/page/index.html"} <= packed
    assert packed == sources


def test_the_wheel_has_every_licence(wheel: Path) -> None:
    """Its own and those of the page's libraries are where installers look, and their expression names them all."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/licenses/" in name]
        (metadata,) = (
            archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA")
        )
    packed = {name.partition(".dist-info/licenses/")[2] for name in names}
    vendored = {str(path.relative_to(ROOT)) for path in (PAGE / "vendor").glob("*/LICENSE")}
    assert len(vendored) == 4
    assert packed == {"LICENSE"} | vendored
    assert "License-Expression: MIT AND BSD-3-Clause AND ISC\n" in metadata


def test_a_typed_program_needs_no_more(wheel: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """A program starts with the core dependencies alone, and the wheel's types are enough to check it strictly."""
    python = clean_python(wheel, tmp_path_factory.mktemp("clean"))
    # The user's program, away from our sources.
    program = Path(shutil.copy(PROGRAM, tmp_path))
    run(python, "-W", "error", "-c", "import typed_program", folder=tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--no-incremental"]
    run(*command, "--python-executable", python, program, folder=tmp_path)
