"""`controller`: run the jobs of queues."""

import asyncio
import atexit
import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import TypedDict, Unpack

import click

from ci_eventstore.amounts import format_duration
from ci_eventstore.cli.history import seal_after_option, sealing, working
from ci_eventstore.cli.output import say, saying_warnings_of
from ci_eventstore.cli.secrecy import (
    Secrets,
    check_holds_none,
    check_set,
    mask_standard_error,
    secrets_option,
    unseen,
)
from ci_eventstore.cli.stopping import STOPPING_SIGNALS
from ci_eventstore.cli.store import head_option, uses_store
from ci_eventstore.cli.usage import ExitCode, duration_option, examples
from ci_eventstore.controllers import ClaimedJob, CommandHandler, Controller, ControllerSettings, WorkFolder
from ci_eventstore.controllers.handlers import Handler
from ci_eventstore.processes.command import without_own
from ci_eventstore.repository import RedisJobRepository

#: In a hurry, commands that are still on their way to the store have this long when everything else has ended.
CLOSE_SECONDS = 0.5
#: How often it is looked whether a controller is idle.
LOOK_SECONDS = 0.2


class Options(TypedDict):
    """What the command line says of a controller."""

    queues: Sequence[str]
    concurrency: int
    lease: float
    time_limit: float | None
    grace: float
    name: str | None
    secrets: Secrets
    passed: Sequence[str]
    seal_after: float | None
    once: bool
    exit_when_idle: float | None


@click.command(
    epilog=examples(
        "controller",
        "controller --queue default --queue slow --concurrency 4",
        "controller --time-limit 1h --grace 5m --name builder-1",
        "controller --once --exit-when-idle 5m",
        "controller --secret-env TOKEN --pass-env TOKEN",
        "controller --url-file /run/secrets/store",
    )
)
@click.option(
    "--queue",
    "queues",
    metavar="NAME",
    multiple=True,
    default=("default",),
    help="Take jobs from this queue. May be repeated.",
)
@click.option("--concurrency", metavar="N", type=click.IntRange(min=1), default=1, help="Run up to N jobs at once.")
@duration_option(
    "--lease", "Let others take this controller's jobs if it stops renewing its leases for this long.", default="30s"
)
@duration_option("--time-limit", "Stop a command that takes longer, and fail its job.")
@duration_option("--grace", "Let running jobs go on for this long after a signal to stop.", default="30s")
@click.option("--name", metavar="NAME", help="The controller's name.  [default: its machine and process]")
@secrets_option("Store *** in place of this environment variable's value, and hide it from commands.")
@click.option(
    "--pass-env",
    "passed",
    metavar="NAME",
    multiple=True,
    callback=check_set,
    help="Pass this variable to commands, although it holds a secret or begins with CI_EVENTSTORE_. May be repeated.",
)
@seal_after_option
@click.option("--once", is_flag=True, help="End after one job, however it ended.")
@duration_option("--exit-when-idle", "End after having had no job for this long.")
@head_option
@unseen
@uses_store
async def controller(repository: RedisJobRepository, **options: Unpack[Options]) -> int:
    """Take jobs from queues and run them, until stopped.

    Each job's command runs in a new folder with the job's project unpacked in it. It gets this program's environment,
    without the variables that begin with CI_EVENTSTORE_ and those of --secret-env; CI_EVENTSTORE_JOB_ID has the job's
    id. The command's output is the job's log, and its exit code the job's result. A job fails if it has no command, if
    its project can't be unpacked, if its time is over, and in place of a sixth attempt.

    If a job is cancelled or lost, or its time is over, its command and everything in its process group are stopped;
    processes that are left after 10 seconds are killed. Processes that a command leaves running are killed once they
    have been silent for 2 seconds, or after 30 seconds. If this program is killed, they all are; other controllers take
    its jobs when their leases have run out.

    --secret-env masks a secret in logs and in this program's own messages, in many spellings (docs/guarantees.md). If a
    command prints a line ::add-mask::VALUE, VALUE is masked in the rest of the log, and the line itself isn't stored.

    At Ctrl-C, SIGTERM or SIGHUP this program takes no more jobs, lets running ones go on for --grace, and then returns
    them to their queue. A second signal kills and returns them at once; this program then ends within 5 seconds,
    whatever the store does. If the store didn't learn how a job ended, the exit code is 4, and a file keeps the rest.

    A job that this machine can't run for want of disk, memory or processes returns to its queue, or fails at the tenth
    time or third controller. This controller takes no other job for a second at first, then for longer.

    A TIME is written as 30s, 15m, 1h or 2d. Commands run with your rights, and so do those of everybody who may submit
    jobs. They don't see the store's URL and password, neither in their environment nor in the list of processes, unless
    you are root. docs/server.md describes controllers for several users.
    """
    if options["once"] and options["concurrency"] > 1:
        raise click.UsageError("--once is for one job: leave --concurrency out")
    concurrency, lease, grace = options["concurrency"], options["lease"], options["grace"]
    settings = ControllerSettings(concurrency=concurrency, lease_seconds=lease, grace_seconds=grace)
    queues = list(dict.fromkeys(options["queues"]))
    mask = mask_standard_error(options["secrets"].texts)
    check_holds_none("--name or --queue", " ".join([options["name"] or "", *queues]), mask)
    taking = Controller(
        repository, queues=queues, name=options["name"], secrets=options["secrets"].texts, settings=settings
    )
    # A command that asks for a password at the terminal is refused, and doesn't wait for ever.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    environment = without_own(os.environ, options["secrets"].names, options["passed"])
    with WorkFolder() as folder, saying_warnings_of("ci_eventstore.controllers"):
        handler = CommandHandler(folder, time_limit_seconds=options["time_limit"], environment=environment, tell=say)
        ending = Ending(taking, handler, options["once"], options["exit_when_idle"])
        async with taking, sealing(repository, options["seal_after"]), working(ending.watch(), "waiting for idleness"):
            _stop_by_signals(taking, handler, repository)
            say(f"controller {taking.name} takes jobs from {', '.join(sorted(queues))}")
            await taking.run(ending.handle)
    unstored = f"; the store doesn't know the ends of {', '.join(taking.unstored)}" if taking.unstored else ""
    say(f"controller {taking.name} has ended{unstored}")
    return ExitCode.STORE if unstored else ExitCode.SUCCESS


class Ending:
    """Ends a controller by itself: after a job, or after a time without any."""

    def __init__(self, taking: Controller, handler: Handler, is_once: bool, idle_seconds: float | None) -> None:
        self._taking = taking
        self._handler = handler
        self._is_once = is_once
        self._idle_seconds = idle_seconds
        self._idle_since = asyncio.get_running_loop().time()

    async def handle(self, claimed: ClaimedJob) -> bool | None:
        """Run a job as the handler does, and note that it is over."""
        try:
            return await self._handler(claimed)
        finally:
            self._idle_since = asyncio.get_running_loop().time()
            if self._is_once:
                # It has no other job: only the end of this one is still to be stored.
                self._taking.stop()

    async def watch(self) -> None:
        """Stop the controller when it has had no job for long enough; never while it has one."""
        if self._idle_seconds is None:
            return
        idle_until = self._idle_since + self._idle_seconds
        while self._taking.running or asyncio.get_running_loop().time() < idle_until:
            await asyncio.sleep(LOOK_SECONDS)
            idle_until = self._idle_since + self._idle_seconds
        say(f"controller {self._taking.name} has had no job for {format_duration(self._idle_seconds)}")
        self._taking.stop()


def _stop_by_signals(taking: Controller, handler: CommandHandler, repository: RedisJobRepository) -> None:
    """Stop the controller at a signal, unless this process was started to ignore it.

    The handlers stay until the process is gone, so that a late signal can't kill it while it ends.
    """
    loop = asyncio.get_running_loop()
    received: list[signal.Signals] = []
    store = repository.engine

    def stop(number: signal.Signals) -> None:
        received.append(number)
        if len(received) == 1:
            grace = format_duration(taking.settings.grace_seconds)
            say(f"{number.name}: no more jobs are taken; running ones have {grace}; another signal gives them back now")
            taking.stop()
        else:
            handler.hurry()
            taking.hurry()
            store.hurry(CLOSE_SECONDS)

    def receive(number: int, frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop, signal.Signals(number))

    for number in STOPPING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, receive)
            # Python restores its own handlers before it ends.
            atexit.register(signal.signal, number, signal.SIG_IGN)
