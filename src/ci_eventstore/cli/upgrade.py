"""`upgrade`: bring a store over to the format of this program."""

import asyncio
import sys
from collections.abc import Sequence

import click

from ci_eventstore.cli.exits import ExitCode
from ci_eventstore.cli.help import examples
from ci_eventstore.cli.messages import say, showing_progress
from ci_eventstore.cli.store import StoreAddress, uses_address
from ci_eventstore.settings import Settings
from ci_eventstore.store_format import FORMAT_VERSION
from ci_eventstore.upgrade.upgrade import Dialog, Stage, cancel
from ci_eventstore.upgrade.upgrade import upgrade as upgrade_store

MARKED = (
    "the store stays marked, and no program opens it: run `ci-eventstore upgrade` again to go on; with --cancel it "
    "goes back to the old version, if nothing is converted yet"
)


@click.command(epilog=examples("upgrade", "upgrade --yes", "upgrade --cancel"))
@click.option("--yes", is_flag=True, help="Don't ask whether there is a backup.")
@click.option("--force", is_flag=True, help="Don't wait: no program of the old version is running.")
@click.option("--cancel", "is_cancelled", is_flag=True, help="Give the store back, if nothing is converted yet.")
@uses_address
async def upgrade(address: StoreAddress, yes: bool, force: bool, is_cancelled: bool) -> int:
    """Bring a store of an earlier format version over to this one.

    First the store is marked, so that no program opens it. Then it waits until programs of the old version are gone,
    asks for a backup, and converts the store. It may be interrupted at any time: run it again. Once it has begun to
    convert, there is no way back but the backup.
    """
    deployment, settings = address.deployment(), Settings(**address.settings())
    if is_cancelled:
        await cancel(deployment, settings.prefix, settings.access)
        say("the store isn't marked any more: programs of the old version open it again")
        return ExitCode.SUCCESS
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked whether there is a backup: make one, then give --yes")
    with showing_progress("keys looked at") as progress:
        dialog = Dialog(lambda: yes or _has_backup(), _say_waiting, progress)
        try:
            stage = await upgrade_store(deployment, settings.prefix, dialog, is_forced=force, access=settings.access)
        except (asyncio.CancelledError, click.Abort):
            say(MARKED)
            raise
    if stage is Stage.DONE:
        say(f"the store has format version {FORMAT_VERSION}")
        return ExitCode.SUCCESS
    say(f"nothing was converted; {MARKED}")
    return ExitCode.FAILED


def _has_backup() -> bool:
    return click.confirm(
        "Is there a backup of the server's data, made since the store is marked? Without it there is no way back",
        err=True,
    )


def _say_waiting(obstacles: Sequence[str]) -> None:
    shown = ", ".join(obstacles[:5]) + (f" and {len(obstacles) - 5} more" if len(obstacles) > 5 else "")
    say(f"waiting until these are gone (--force: go on without): {shown}")
