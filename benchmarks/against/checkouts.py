"""The two sides: copies of this checkout's source and of another commit's, each with what it depends on."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
#: Environments of commits that depend on other packages than this checkout does.
ENVIRONMENTS = ROOT / "build" / "against"


@dataclass(frozen=True, slots=True)
class Checkout:
    """One side."""

    #: `here` or `there`.
    name: str
    #: Of the commit, and whether its files were changed since.
    title: str
    source: Path
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which its processes take the benchmark from this checkout, and the store from its own."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.source), str(ROOT)])}


def commit_of(name: str) -> str:
    """Return the full id of a commit; LookupError if there is none of that name."""
    found = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False).decode().strip()
    if not found:
        raise LookupError(f"{name!r} is no commit of this repository")
    return found


@contextmanager
def both(commit: str) -> Iterator[tuple[Checkout, Checkout]]:
    """Copy both sides, so that files may be edited while they are measured."""
    with TemporaryDirectory(prefix="ci-against-") as folder:
        here, there = Path(folder, "here"), Path(folder, "there")
        here.mkdir()
        shutil.copytree(ROOT / "src", here / "src", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", here)
        extract(commit, there)
        python = python_for(commit[:12], there, here)
        yield (
            Checkout(
                "here", title_of("HEAD", is_changed=bool(git("status", "--porcelain", "src"))), here / "src", python[1]
            ),
            Checkout("there", title_of(commit), there / "src", python[0]),
        )


def extract(commit: str, folder: Path) -> None:
    """Write all files of a commit into a new folder."""
    with tarfile.open(fileobj=BytesIO(git("archive", "--format=tar", commit))) as archive:
        archive.extractall(folder, filter="data")


def python_for(commit: str, there: Path, here: Path) -> tuple[Path, Path]:
    """Return the interpreters of both sides: this one for both, unless they depend on other packages."""
    own = Path(sys.executable)
    if dependencies(there / "pyproject.toml") == dependencies(here / "pyproject.toml"):
        return own, own
    python = ENVIRONMENTS / commit / "bin" / "python"
    if not python.exists():
        print(f"installing what {commit} depends on", file=sys.stderr)
        subprocess.run([own, "-m", "venv", "--clear", ENVIRONMENTS / commit], check=True)
        try:
            subprocess.run([python, "-m", "pip", "install", "--quiet", f"{there}[all]"], check=True)
        except BaseException:
            shutil.rmtree(ENVIRONMENTS / commit)
            raise
    return python, own


def dependencies(project: Path) -> dict[str, frozenset[str]]:
    """Return what an installation for users needs, by extra; what tests and peers need makes no difference."""
    found = tomllib.loads(project.read_text())["project"]
    extras = {**found["optional-dependencies"], "": found["dependencies"]}
    return {name: frozenset(needed) for name, needed in extras.items() if name not in {"dev", "bench"}}


def title_of(commit: str, *, is_changed: bool = False) -> str:
    """Return a commit's short id and its message's first line."""
    title = git("log", "-1", "--format=%h %s", commit).decode().strip()
    return f"{title}, with changes" if is_changed else title


def git(*arguments: str, check: bool = True) -> bytes:
    """Return what a command of git prints."""
    return subprocess.run(["git", "-C", ROOT, *arguments], stdout=subprocess.PIPE, check=check).stdout
