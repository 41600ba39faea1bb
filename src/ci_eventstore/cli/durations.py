"""Durations on the command line."""

import click

from ci_eventstore.controllers.durations import parse_duration


def read_duration(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Return a duration on the command line in seconds; click.BadParameter."""
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None
