"""A pytest plugin: where the environment variable CI is set, a skipped test, or one that was left out, fails the run.

A developer's machine may lack a server to test against; the machine that decides about a change may not. The run goes
on to its end, so that all skips are seen at once. With xdist the controller gets every worker's reports.
"""

import os

import pytest

from tests.needs import LEFT_OUT


def is_ci() -> bool:
    """Return whether this is the machine that decides about a change."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def pytest_configure(config: pytest.Config) -> None:
    """Start to collect skips, if this is CI."""
    if is_ci():
        config.pluginmanager.register(NoSkips(), "no-skips")


class NoSkips:
    """Notes every skipped test and module; fails the session if there was one, or if a test was left out."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test, but not one that is expected to fail, which pytest reports as skipped too."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that skipped itself as a whole."""
        if report.skipped:
            self.skipped.append(report.nodeid)

    def _is_incomplete(self, config: pytest.Config) -> bool:
        return bool(self.skipped) or config.stash[LEFT_OUT].total() > 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a run that otherwise went well into a failed one."""
        if self._is_incomplete(session.config) and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """Say that this is a failure, and which tests were skipped."""
        if self._is_incomplete(config):
            terminalreporter.section("skipped tests", red=True, bold=True)
            terminalreporter.write_line("CI is set, and in CI no test may be skipped:")
            for nodeid in dict.fromkeys(self.skipped):
                terminalreporter.write_line(f"  {nodeid}")
