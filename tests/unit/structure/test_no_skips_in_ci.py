"""Our plugins: tests that can't run here are left out in one line; in CI that, and every skip, fails the run."""

import pytest

from tests import needs

PASSES = "def test_passes(): pass\n"
SKIPS = "import pytest\n@pytest.mark.skip\ndef test_skips(): pass\n"
SKIPS_THE_MODULE = "import pytest\npytest.skip('no server', allow_module_level=True)\n"
FAILS_AS_EXPECTED = "import pytest\n@pytest.mark.xfail\ndef test_fails(): assert False\n"
NEEDS = (
    "import pytest\n"
    "@pytest.mark.parametrize('server', [1, pytest.param(2, marks=pytest.mark.needs('nothing'))])\n"
    "@pytest.mark.parametrize('number', range(3))\n"
    "def test_with_server(server, number): assert server == 1\n"
)
FINDS_NOTHING = """
from tests import needs

def find():
    raise LookupError("there is no such thing")

needs.NEEDS["nothing"] = find
"""
LEFT_OUT = "3 tests were left out: there is no such thing"
IN_CI = "in CI no test may be skipped"


def _find_nothing() -> None:
    raise LookupError("there is no such thing")


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder whose tests run in this process, with no plugin but those that are named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setitem(needs.NEEDS, "nothing", _find_nothing)
    return pytester


def run(folder: pytest.Pytester, text: str, *options: str) -> pytest.RunResult:
    """Run one test file with both plugins."""
    folder.makepyfile(text)
    plugins = ("-p", "tests.needs", "-p", "tests.no_skips_in_ci", "-p", "no:cacheprovider")
    return folder.runpytest_inprocess(*plugins, *options)


@pytest.mark.parametrize("text", [PASSES + SKIPS, SKIPS_THE_MODULE], ids=["test", "module"])
def test_a_skip_fails_the_run(folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A skipped test or module makes pytest exit with 1 and say why."""
    monkeypatch.setenv("CI", "true")
    done = run(folder, text)
    assert (done.ret, IN_CI in done.stdout.str()) == (1, True)


@pytest.mark.parametrize(
    ("text", "ci"),
    [(PASSES + SKIPS, ""), (PASSES + SKIPS, "false"), (PASSES + FAILS_AS_EXPECTED, "true")],
    ids=["no CI", "CI is false", "expected failure"],
)
def test_other_runs_pass(folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str, ci: str) -> None:
    """Outside CI a skip is allowed, and an expected failure is no skip."""
    monkeypatch.setenv("CI", ci)
    assert run(folder, text).ret == 0


@pytest.mark.parametrize("ci", ["", "true"])
def test_what_is_missing_is_said_once(folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    """Tests that need it are left out in one line with their number; in CI the run has failed."""
    monkeypatch.setenv("CI", ci)
    done = run(folder, NEEDS, "-rs")
    done.assert_outcomes(passed=3, deselected=3)
    assert done.stdout.str().count("there is no such thing") == done.stdout.str().count(LEFT_OUT) == 1
    assert (done.ret, IN_CI in done.stdout.str()) == (bool(ci), bool(ci))


def test_only_tests_that_were_asked_for_are_counted(folder: pytest.Pytester) -> None:
    """Those that an option had left out anyway aren't missed."""
    done = run(folder, NEEDS, "-k", "1-")
    done.assert_outcomes(passed=1, deselected=5)
    assert "1 test was left out" in done.stdout.str()


def test_workers_report_to_their_controller(folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With xdist too: both what was skipped and what was left out."""
    monkeypatch.setenv("CI", "true")
    folder.makeconftest(FINDS_NOTHING)
    done = run(folder, NEEDS + SKIPS, "-p", "xdist", "-n", "2")
    shown = done.stdout.str()
    assert done.ret == 1
    assert LEFT_OUT in shown
    assert "test_skips" in shown


def test_a_surrogate_reaches_the_controller(folder: pytest.Pytester) -> None:
    """What is logged with one, and what fails with one, ends no run."""
    text = (
        "import logging\n"
        "def test_passes(): logging.error(chr(0xd83d))\n"
        "def test_fails(): raise ValueError(chr(0xd83d))\n"
    )
    done = run(folder, text, "-p", "tests.surrogates", "-p", "xdist", "-n", "1")
    done.assert_outcomes(passed=1, failed=1)
