"""A pytest plugin: tests that need what this machine lacks are left out, and one line in the end says how many and why.

A test, or a parameter of one, says what it needs:

    @pytest.mark.needs("nginx")

That is decided while tests are collected. With xdist each worker collects; the controller says what they left out.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import find_redis7

#: Starts a program that may mount what nobody else sees, without being root.
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")

#: How many tests were left out for each reason; it is complete when the session finishes.
LEFT_OUT = pytest.StashKey[Counter[str]]()


def find_nginx() -> str:
    """Return nginx, which Debian has where only root's PATH leads; LookupError if there is none."""
    return _find("nginx", f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


def find_curl() -> str:
    """Return curl, which the README types; LookupError if there is none."""
    return _find("curl", os.environ["PATH"])


def find_chromium() -> str:
    """Return the browser; LookupError if there is none."""
    return _find("chromium", os.environ["PATH"])


def _find_axe() -> None:
    if not (Path(__file__).parents[1] / "node_modules/axe-core/axe.min.js").exists():
        raise LookupError("there is no node_modules/axe-core: `make check` installs it")


def _find_systemd() -> str:
    return _find("systemd-analyze", os.environ["PATH"], "systemd")


def _find(program: str, path: str, package: str = "") -> str:
    found = shutil.which(program, path=path)
    if found is None:
        raise LookupError(f"there is no {program} on PATH: apt-get install {package or program}")
    return found


def _find_processes() -> None:
    if not Path("/proc/self/stat").exists():
        raise LookupError("processes are looked for in /proc, which Linux has")


def _find_mount_namespaces() -> None:
    try:
        subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LookupError("no process may have mounts of its own here") from error


#: What may be missing, and the function that raises LookupError if it is.
NEEDS: dict[str, Callable[[], object]] = {
    "redis7": find_redis7,
    "nginx": find_nginx,
    "chromium": find_chromium,
    "axe-core": _find_axe,
    "curl": find_curl,
    "systemd-analyze": _find_systemd,
    "/proc": _find_processes,
    "mount namespaces": _find_mount_namespaces,
}


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.addinivalue_line("markers", "needs(name): left out where this is missing; tests/needs.py has the names")
    config.stash[LEFT_OUT] = Counter()
    config.pluginmanager.register(_LeavesOut(config.stash[LEFT_OUT]), "leaves-out")


class _LeavesOut:
    def __init__(self, left_out: Counter[str]) -> None:
        self._left_out = left_out
        self._reasons: dict[str, str | None] = {}

    # After the options -k and -m, so that only tests that would have run are counted.
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        reasons = {item: self._why_not(item) for item in items}
        self._left_out.update(reason for reason in reasons.values() if reason)
        config.hook.pytest_deselected(items=[item for item in items if reasons[item]])
        items[:] = [item for item in items if not reasons[item]]

    def _why_not(self, item: pytest.Item) -> str | None:
        names = (name for mark in item.iter_markers("needs") for name in mark.args)
        return next((reason for name in names if (reason := self._what_is_missing(name))), None)

    def _what_is_missing(self, name: str) -> str | None:
        if name not in self._reasons:
            find = NEEDS.get(name)
            if find is None:
                raise pytest.UsageError(f"nothing that a test needs is called {name!r}: tests/needs.py has the names")
            try:
                find()
                self._reasons[name] = None
            except LookupError as reason:
                self._reasons[name] = str(reason)
        return self._reasons[name]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["left_out"] = dict(self._left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        # All workers leave out the same tests; one that died says nothing.
        output = getattr(node, "workeroutput", None) or {}
        self._left_out |= Counter(output.get("left_out", {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for reason, count in self._left_out.items():
            tests = "1 test was" if count == 1 else f"{count} tests were"
            terminalreporter.write_line(f"{tests} left out: {reason}", yellow=True)
