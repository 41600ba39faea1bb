"""A pytest plugin: where the environment variable CI is set, a skipped test fails the run.

A developer's machine may lack a server to test against; the machine that decides about a change may not. The run goes
on to its end, so that all skips are seen at once. With xdist the controller gets every worker's reports.
"""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Start to collect skips, if this is CI."""
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        config.pluginmanager.register(NoSkips(), "no-skips")


class NoSkips:
    """Notes every skipped test and module; fails the session if there was one."""

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

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a run that otherwise went well into a failed one."""
        if self.skipped and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which tests were skipped and why that is a failure."""
        if self.skipped:
            terminalreporter.section("skipped tests", red=True, bold=True)
            terminalreporter.write_line("CI is set, and in CI no test may be skipped:")
            for nodeid in dict.fromkeys(self.skipped):
                terminalreporter.write_line(f"  {nodeid}")
