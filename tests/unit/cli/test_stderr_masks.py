"""What a program says on standard error, by whatever way, has masks."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging
from ci_eventstore.cli.output import say
from ci_eventstore.cli.secrecy import mask_standard_error
mask_standard_error(["hunter2-0815", "one line of\\ntwo lines"])
say("a hunter2-0815 in a message")
logging.getLogger("ci_eventstore.writer").warning("one of %s in a log", "hunter2-0815")
try:
    raise ValueError("hunter2-0815")
except ValueError:
    logging.getLogger("asyncio").exception("a task failed")
raise RuntimeError({"a": "one line of\\ntwo lines", "b": "aHVudGVyMi0wODE1"})
"""


@pytest.mark.slow
def test_messages_logs_and_tracebacks() -> None:
    """Also what Python itself says of an exception that nobody handles; slow, since it starts a process."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr
    assert said.startswith("ci-eventstore: a *** in a message\none of *** in a log\na task failed\nTraceback")
    assert "ValueError: ***" in said
    assert "RuntimeError: {'a': '***', 'b': '***'}" in said
    for secret in ("hunter2", "one line", "two lines", "aHVudGVy"):
        assert secret not in said
