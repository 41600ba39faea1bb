"""Secrets that the environment holds, by the names of their variables."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import click


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


def check_holds_none(what: str, text: str, secrets: Sequence[str]) -> None:
    """Refuse a text that has to be stored as it is if it has a secret in it; click.UsageError."""
    if any(secret in text for secret in secrets):
        raise click.UsageError(f"{what} holds a secret, and can't be masked")


def _secret(name: str, context: click.Context, parameter: click.Parameter) -> str:
    """Return a variable's value without the white space around it, which is often there by accident."""
    value = os.environ.get(name)
    if value is not None and value.strip():
        return value.strip()
    state = "isn't set" if value is None else "holds only white space, which can't be masked" if value else "is empty"
    raise click.BadParameter(f"the environment variable {name} {state}", context, parameter)


def _spellings(secret: str) -> set[str]:
    """Return a secret as the program's arguments have it, and as a log has it: those differ in old locales."""
    return {secret, os.fsencode(secret).decode("utf-8", "surrogateescape")}
