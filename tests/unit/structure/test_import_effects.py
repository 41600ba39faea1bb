"""Importing the library has no effect."""

import subprocess
import sys

from tests.unit.structure.source import source_modules

#: Runs in a process of its own, where nothing has been imported; what it prints is an effect that it found.
PROGRAM = """
import importlib, logging, sys, threading

def is_configured(logger):
    return logger.handlers or logger.filters or logger.level or logger.disabled or not logger.propagate

def root_state():
    root = logging.getLogger()
    return root.level, list(root.handlers), list(root.filters), logging.raiseExceptions, root.manager.disable

before = root_state()
from ci_eventstore.cli.program import program
program.get_command(None, "run")
for name in {"numpy", "fastapi", "ci_eventstore.cli.serve", "ci_eventstore.history"} & set(sys.modules):
    print("a call of `run` imports", name)
for name in sys.argv[1:]:
    importlib.import_module(name)
if root_state() != before:
    print("the root logger is configured")
for name, logger in logging.root.manager.loggerDict.items():
    if name.startswith("ci_") and isinstance(logger, logging.Logger) and is_configured(logger):
        print("the logger", name, "is configured")
if threading.active_count() > 1:
    print("a thread runs")
"""


def test_importing_every_module_has_no_effect() -> None:
    """No import configures logging, starts a thread or prints; a command imports nothing that only others need."""
    names = [module.name for module in source_modules() if not module.name.endswith("__main__")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
