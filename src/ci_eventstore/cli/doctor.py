"""`doctor`: what is wrong with a store and its servers, and what to do."""

import shutil
import sys
import textwrap
from dataclasses import asdict, replace

import click

from ci_eventstore.cli.output import echo_json, json_option, printable, say, showing_progress
from ci_eventstore.cli.store import StoreAddress, uses_address
from ci_eventstore.cli.usage import ExitCode, examples, literally
from ci_eventstore.connection.deployments import default_url, from_url
from ci_eventstore.diagnosis.examination import examine
from ci_eventstore.diagnosis.findings import CHECKS, Finding, Severity, plural, worst_of
from ci_eventstore.settings import Settings

#: The widest lines where standard output is no terminal.
WIDTH = 1_000_000
WORST_FIRST = tuple(reversed(Severity))

CHECKED = literally("Checks:", *(f"  {name:<14}{text}" for name, text in CHECKS.items()))


@click.command(epilog=f"{CHECKED}\n\n{examples('doctor', 'doctor --json')}")
@json_option
@uses_address
async def doctor(address: StoreAddress, as_json: bool) -> int:
    """Look for what is wrong with the store and its servers.

    Prints a finding for each check: how bad it is (ok, note, warning, error), what was seen, and what to do. Changes
    nothing: the message and the object by which channel and archive are tried are gone afterwards. It takes at most a
    minute and a half, works also where other commands refuse the server, and goes as far as its user's rights:
    CI_EVENTSTORE_ACCESS=read writes nothing. Exits with 1 if there is a warning or an error.
    """
    deployment, settings = from_url(address.find_url() or default_url()), Settings(**address.settings())
    with showing_progress("looked at") as progress:
        found = await examine(deployment, settings, progress)
    if as_json:
        echo_json([asdict(finding) for finding in found])
    else:
        _show(found)
    counts = [(severity, sum(one.severity is severity for one in found)) for severity in WORST_FIRST]
    say(", ".join(f"{count} ok" if kind is Severity.OK else plural(count, kind) for kind, count in counts if count))
    return ExitCode.FAILED if worst_of(found).rank >= Severity.WARNING.rank else ExitCode.SUCCESS


def _show(found: list[Finding]) -> None:
    """Print findings with what to do below them; where there are several servers, they are named, once for the same."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    names = sorted({finding.node for finding in found if finding.node})
    of = dict[Finding, list[str]]()
    for finding in found:
        of.setdefault(replace(finding, node=None), []).extend([finding.node] if finding.node else [])
    for finding, nodes in of.items():
        head = f"{finding.severity:<9}{finding.check:<14}"
        for first, text in ((head, _where(nodes, names) + finding.what), (" " * len(head), finding.advice)):
            if text:
                mark = "→ " if first.isspace() else ""
                indent = " " * (len(head) + len(mark))
                click.echo(textwrap.fill(mark + printable(text), width, initial_indent=first, subsequent_indent=indent))


def _where(nodes: list[str], names: list[str]) -> str:
    """Return how the servers of a finding are named before it, of all that there are."""
    if len(names) < 2 or not nodes:
        return ""
    return "all servers: " if len(nodes) == len(names) else f"{', '.join(nodes)}: "
