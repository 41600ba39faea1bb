"""Secrets that the environment holds, by the names of their variables."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

import click

from ci_eventstore.writer.masking import Masker, PreparedSecrets
from ci_eventstore.writer.spellings import SECRET_CHARACTERS


@dataclass(frozen=True)
class Secrets:
    """Variables that hold secrets."""

    names: tuple[str, ...]
    #: What is to be masked.
    texts: tuple[str, ...]


def read_secrets(context: click.Context, parameter: click.Parameter, names: Sequence[str]) -> Secrets:
    """Return the secrets in variables of these names; click.BadParameter if one holds none."""
    texts = tuple(text for name in names for text in _spellings(_secret(name, context, parameter)))
    return Secrets(tuple(names), texts)


def check_set(context: click.Context, parameter: click.Parameter, names: Sequence[str]) -> tuple[str, ...]:
    """Return names of variables, all of which are set; click.BadParameter."""
    for name in names:
        if name not in os.environ:
            raise click.BadParameter(f"the environment variable {name} isn't set", context, parameter)
    return tuple(names)


def check_holds_none(what: str, text: str, mask: Callable[[str], str]) -> None:
    """Refuse a text that has to be stored as it is if it has a secret in it; click.UsageError."""
    if mask(text) != text:
        raise click.UsageError(f"{what} holds a secret, and can't be masked")


def mask_standard_error(secrets: Sequence[str]) -> Callable[[str], str]:
    """Mask secrets in all that this process says from now on, tracebacks included; return what masks a text."""
    mask = Masker(PreparedSecrets(secrets)).mask_all
    if secrets:
        sys.stderr = _MaskedText(sys.stderr, mask)
    return mask


class _MaskedText(io.TextIOBase):
    """A text file in which whatever is written in one go has masks."""

    def __init__(self, file: TextIO, mask: Callable[[str], str]) -> None:
        self._file = file
        self._mask = mask

    def write(self, text: str) -> int:
        """Write a text with masks."""
        self._file.write(self._mask(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        self._file.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Return the file's own number."""
        return self._file.fileno()


def _secret(name: str, context: click.Context, parameter: click.Parameter) -> str:
    """Return a variable's value without the white space around it, which is often there by accident."""
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
    """Return a secret as the program's arguments have it, and as a log has it: those differ in old locales."""
    return {secret, os.fsencode(secret).decode("utf-8", "surrogateescape")}
