"""Start a controller so that the jobs that it runs find no credentials in `/proc`.

A job's command has the controller's rights, and reads `/proc/<its parent>/environ` and `cmdline` as the system has kept
them from the controller's start, whatever the controller does to its own copy. So the program starts itself again, in
the same process, without what is to be hidden: that comes through a file without a name. A process can still be
read by root, and as long as it starts.
"""

import contextlib
import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from ci_eventstore.cli.store import StoreAddress, pass_address
from ci_eventstore.processes.environment import OWN_PREFIX

#: Tells the program that was started again which descriptor it reads what is hidden from.
VARIABLE = f"{OWN_PREFIX}HIDDEN"
HIDDEN_URL = "***"
_PR_SET_DUMPABLE = 4

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Hidden:
    """What a program that was started again got in another way than by its command line and its environment."""

    url: str | None
    environment: Mapping[str, str]


def receive() -> StoreAddress:
    """Take over what was hidden; return the store's address as far as it was."""
    descriptor = os.environ.pop(VARIABLE, "")
    if not descriptor.isdecimal():
        return StoreAddress(owns_process=True)
    with os.fdopen(int(descriptor), "rb") as file:
        hidden = Hidden(**json.load(file))
    # Not where the system shows it: what a process sets later is in its own memory.
    os.environ.update(hidden.environment)
    return StoreAddress(owns_process=True, hidden_url=hidden.url, was_started_again=True)


def unseen(function: Callable[P, R]) -> Callable[P, R]:
    """Make a command start itself again if its command line or its environment hold what its jobs mustn't see."""

    @pass_address
    @wraps(function)
    def call(address: StoreAddress, /, *args: P.args, **kwargs: P.kwargs) -> R:
        secrets = kwargs.get("secrets")
        names: Iterable[str] = getattr(secrets, "names", ())
        if address.owns_process:
            _start_again(address, frozenset(names))
            _forbid_looking()
        return function(*args, **kwargs)

    return call


def _start_again(address: StoreAddress, secret_names: frozenset[str]) -> None:
    """Replace this program by itself, without what is to be hidden; return if there is nothing."""
    if address.was_started_again or not sys.executable:
        return
    url = address.find_url()
    environment = {
        name: value for name, value in os.environ.items() if name in secret_names or name.startswith(OWN_PREFIX)
    }
    if not (secret_names or (url is not None and _may_hold_secret(url))):
        return
    descriptor = _keep({"url": url, "environment": environment})
    shown = {name: value for name, value in os.environ.items() if name not in environment}
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os.execve(sys.executable, shown_arguments(sys.orig_argv, address.url), {**shown, VARIABLE: str(descriptor)})


def shown_arguments(arguments: Sequence[str], url: str | None) -> list[str]:
    """Return a command line without the store's URL."""
    if not url:
        return list(arguments)
    masked = {url: HIDDEN_URL, f"--url={url}": f"--url={HIDDEN_URL}"}
    return [masked.get(argument, argument) for argument in arguments]


def _may_hold_secret(url: str) -> bool:
    return not url.startswith("embedded:") and ("@" in url or "?" in url)


def _keep(content: Mapping[str, object]) -> int:
    """Write something into a file without a name, and return its descriptor, which a program started next inherits."""
    data = json.dumps(content).encode()
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("ci-eventstore", 0)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.set_inheritable(descriptor, True)
    return descriptor


def _forbid_looking() -> None:
    """Let other processes of this user neither trace this one nor read its memory, where the system knows of that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
