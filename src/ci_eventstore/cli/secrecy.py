"""Secrets of this process: read from variables, masked in what it says, hidden from the jobs that it runs.

A job's command has the controller's rights, and reads `/proc/<its parent>/environ` and `cmdline` as the system has kept
them from the controller's start, whatever the controller does to its own copy. So the program starts itself again, in
the same process, without what is to be hidden: that comes through a file without a name. A process can still be
read by root, and as long as it starts.
"""

import contextlib
import ctypes
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TextIO, TypeVar

import click

from ci_eventstore.cli.store import StoreAddress, pass_address
from ci_eventstore.processes.command import OWN_PREFIX
from ci_eventstore.writer.masking import Masker, PreparedSecrets
from ci_eventstore.writer.spellings import SECRET_CHARACTERS

#: Gives the program that was started again the descriptor from which it reads what is hidden.
VARIABLE = f"{OWN_PREFIX}HIDDEN"
HIDDEN_URL = "***"
_PR_SET_DUMPABLE = 4

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Secrets:
    """Variables that hold secrets."""

    names: tuple[str, ...]
    #: Their values, as arguments and as logs spell them.
    texts: tuple[str, ...]


def secrets_option(text: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return the option --secret-env, which gives a command its `Secrets`; `text` says what becomes of each."""
    text += " May be repeated."
    return click.option("--secret-env", "secrets", metavar="NAME", multiple=True, callback=_read_secrets, help=text)


def _read_secrets(context: click.Context, parameter: click.Parameter, names: Sequence[str]) -> Secrets:
    texts = tuple(text for name in names for text in _spellings(_secret(name, context, parameter)))
    return Secrets(tuple(names), texts)


def check_set(context: click.Context, parameter: click.Parameter, names: Sequence[str]) -> tuple[str, ...]:
    """Return names of variables, all of which are set; click.BadParameter."""
    for name in names:
        if name not in os.environ:
            raise click.BadParameter(f"the environment variable {name} isn't set", context, parameter)
    return tuple(names)


def check_holds_none(what: str, text: str, mask: Callable[[str], str]) -> None:
    """Refuse a text that must be stored unmasked if it holds a secret; click.UsageError."""
    if mask(text) != text:
        raise click.UsageError(f"{what} holds a secret, and can't be masked")


def mask_standard_error(secrets: Sequence[str]) -> Callable[[str], str]:
    """Mask secrets in everything that this process writes to standard error, tracebacks too; return the mask."""
    mask = Masker(PreparedSecrets(secrets)).mask_all
    if secrets:
        sys.stderr = _MaskedText(sys.stderr, mask)
    return mask


class _MaskedText(io.TextIOBase):
    """A text file that masks whatever is written to it in one go."""

    def __init__(self, file: TextIO, mask: Callable[[str], str]) -> None:
        self._file = file
        self._mask = mask

    def write(self, text: str) -> int:
        """Write a text, masked; return the length that it had."""
        self._file.write(self._mask(text))
        return len(text)

    def flush(self) -> None:
        """Flush the file itself."""
        self._file.flush()

    def isatty(self) -> bool:
        """Return whether the file itself is a terminal."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the file itself."""
        return self._file.fileno()


def _secret(name: str, context: click.Context, parameter: click.Parameter) -> str:
    """Return a variable's value without the white space around it, which is often an accident."""
    value = os.environ.get(name)
    secret = (value or "").strip()
    if len(secret) >= SECRET_CHARACTERS:
        return secret
    if secret:
        few = f"has fewer than {SECRET_CHARACTERS} characters, and masking it would mask other text"
        raise click.BadParameter(f"the environment variable {name} {few}", context, parameter)
    state = "isn't set" if value is None else "holds only white space, which can't be masked" if value else "is empty"
    raise click.BadParameter(f"the environment variable {name} {state}", context, parameter)


def _spellings(secret: str) -> set[str]:
    """Return a secret as arguments spell it and as a log does, which differ in old locales."""
    return {secret, os.fsencode(secret).decode("utf-8", "surrogateescape")}


def receive() -> StoreAddress:
    """Restore what was hidden in the environment, and return the store's address if that was hidden."""
    descriptor = os.environ.pop(VARIABLE, "")
    if not descriptor.isdecimal():
        return StoreAddress(owns_process=True)
    with os.fdopen(int(descriptor), "rb") as file:
        hidden = json.load(file)
    # The system doesn't show this: it is in the process's own memory.
    os.environ.update(hidden["environment"])
    return StoreAddress(owns_process=True, hidden_url=hidden["url"], was_started_again=True)


def unseen(function: Callable[P, R]) -> Callable[P, R]:
    """Make a command restart itself if its command line or environment hold what its jobs mustn't see."""

    @pass_address
    @wraps(function)
    def call(address: StoreAddress, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if address.owns_process:
            _start_again(address, frozenset(getattr(kwargs.get("secrets"), "names", ())))
            _forbid_looking()
        return function(*args, **kwargs)

    return call


def _start_again(address: StoreAddress, secret_names: frozenset[str]) -> None:
    """Replace this program by itself without the URL and the secrets; return if there are none."""
    if address.was_started_again or not sys.executable:
        return
    url = address.find_url()
    environment = {
        name: value for name, value in os.environ.items() if name in secret_names or name.startswith(OWN_PREFIX)
    }
    may_url_hold_secret = url is not None and not url.startswith("embedded:") and ("@" in url or "?" in url)
    if not (secret_names or may_url_hold_secret):
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


def _keep(content: Mapping[str, object]) -> int:
    """Write some JSON into a file without a name; return its descriptor, which the next program inherits."""
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
    """Keep other processes of this user from tracing this one and reading its memory, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
