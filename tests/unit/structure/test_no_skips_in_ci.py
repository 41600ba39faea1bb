"""In CI a skipped test fails the run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.structure.source import ROOT

PASSES = "def test_passes(): pass\n"
SKIPS = "import pytest\n@pytest.mark.skip\ndef test_skips(): pass\n"
SKIPS_THE_MODULE = "import pytest\npytest.skip('no server', allow_module_level=True)\n"
FAILS_AS_EXPECTED = "import pytest\n@pytest.mark.xfail\ndef test_fails(): assert False\n"


def run_pytest(folder: Path, text: str, *options: str, ci: str) -> subprocess.CompletedProcess[str]:
    """Run one test file with the plugin and nothing else of this project's settings."""
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder), "-p", "tests.no_skips_in_ci"]
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, str(folder)],
        cwd=folder,
        env={name: value for name, value in environment.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "xdist"])
@pytest.mark.parametrize("text", [PASSES + SKIPS, SKIPS_THE_MODULE], ids=["test", "module"])
def test_a_skip_fails_the_run(tmp_path: Path, text: str, options: tuple[str, ...]) -> None:
    """A skipped test or module makes pytest exit with 1 and say why."""
    done = run_pytest(tmp_path, text, *options, ci="true")
    assert (done.returncode, "in CI no test may be skipped" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("text", "ci"),
    [(PASSES + SKIPS, ""), (PASSES + SKIPS, "false"), (PASSES + FAILS_AS_EXPECTED, "true")],
    ids=["no CI", "CI is false", "expected failure"],
)
def test_other_runs_pass(tmp_path: Path, text: str, ci: str) -> None:
    """Outside CI a skip is allowed, and an expected failure is no skip."""
    assert run_pytest(tmp_path, text, ci=ci).returncode == 0
