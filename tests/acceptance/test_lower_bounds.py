"""The oldest versions that `pyproject.toml` allows are enough."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What the tests below need, at any version.
FOR_TESTS = [
    "cryptography",
    "httpx",
    "httpx-sse",
    "hypothesis",
    "pytest>=9",
    "pytest-asyncio",
    "pytest-timeout",
    "pyyaml",
    "requests",
]
TESTS = ["tests/unit/web", "tests/integration/web/test_edges.py", "tests/integration/web/test_jobs.py"]
TESTS += ["tests/integration/web/test_metrics.py", "tests/integration/web/test_other_sites.py"]


def lowest() -> list[str]:
    """Return what a whole installation requires, each at the oldest version that is allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["embedded"], *extras["cli"], *extras["server"]]
    found = [re.fullmatch(r"([\w\[\]-]+)>=([\d.]+)(,<\d+)?", requirement) for requirement in asked]
    assert all(found), asked
    return [f"{one[1]}=={one[2]}" for one in found if one]


@pytest.mark.slow  # It makes a virtual environment, and runs tests in it.
@pytest.mark.timeout(600)
def test_the_server_works_with_the_oldest_versions(tmp_path: Path) -> None:
    """Routes, forms, ranges, metrics and settings, in an environment of its own."""
    python = tmp_path / "venv" / "bin" / "python"
    # What is imported is compiled then.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    run([sys.executable, "-m", "venv", str(tmp_path / "venv")])
    run([*pip, *lowest(), *FOR_TESTS])
    run([*pip, "--no-deps", "--editable", str(ROOT)])
    run([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *TESTS])


def run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
