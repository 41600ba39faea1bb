"""Erase a user: all jobs that are theirs, their account, keys and sessions, and what the server's files have of them.

The user is shut out first, and the account goes last: whoever was stopped in between erases again, and finds the rest.
Requests that were let in before may still make jobs for a moment, so there is a second look after that.
"""

import asyncio
import stat
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

from ci_common.errors import InvalidTransitionError, JobNotFoundError, UserNotFoundError
from ci_common.models import JobStatus
from ci_common.transitions import ENDED
from ci_eventstore.accounts.erasure import begin_erasure, delete_account, end_sessions, key_records
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.node import Node
from ci_eventstore.connection.replies import WRONG_TYPE, as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import (
    MissingRightsError,
    OutcomeUnknownError,
    StoreError,
    StoreFormatError,
    StoreUnavailableError,
    UserBusyError,
)
from ci_eventstore.jobs.delete import delete_job
from ci_eventstore.jobs.records import read_records
from ci_eventstore.jobs.state import JobState
from ci_eventstore.jobs.tombstones import Reason
from ci_eventstore.keys import all_keys_pattern, gone_key, jobs_key, queue_everywhere
from ci_eventstore.members import member_job_id
from ci_eventstore.queues.overview import queue_names
from ci_eventstore.repository import RedisJobRepository

PAGE_JOBS = 100
#: A server trusts a key that it has looked up for 5 seconds; then there is what the request itself takes. One that is
#: cut off from the accounts, and from nothing else, trusts it for a minute: docs/guarantees.md says what to do there.
SETTLE_SECONDS = 10.0
#: How long a job that was cancelled may take to end.
END_SECONDS = 120.0
PAUSE_SECONDS = 0.1
REWRITE_SECONDS = 3600.0


class RewriteTicketsCall(NamedTuple):
    """What `rewrite_tickets.lua` is called with."""

    dispatch: Key


REWRITE_TICKETS = load_script(__package__, "rewrite_tickets", call=RewriteTicketsCall)


@dataclass(slots=True)
class Receipt:
    """What has gone, and what is left: numbers and ids, nothing of the user."""

    jobs: int = 0
    #: Of these jobs: how many were cancelled first.
    cancelled: int = 0
    accounts: int = 0
    api_keys: int = 0
    sessions: int = 0
    webhooks: int = 0
    projects: int = 0
    #: How many jobs had a project elsewhere than in the given folder.
    projects_left: int = 0
    #: Servers whose files were rewritten.
    rewritten: int = 0
    #: Jobs that can't be deleted, and why: the account stays for that long.
    left: dict[str, str] = field(default_factory=dict)
    #: Queues whose tickets the server's user may not write anew: beside them the server may still have the user's id.
    queues: list[str] = field(default_factory=list)


class Eraser:
    """Erases one user; may be stopped anywhere, and repeated."""

    def __init__(
        self,
        repository: RedisJobRepository,
        user_id: str,
        *,
        cancels: bool = False,
        project_folder: Path | None = None,
        settle_seconds: float = SETTLE_SECONDS,
        end_seconds: float = END_SECONDS,
    ) -> None:
        """Erase a user by id, who may have jobs alone; with `cancels`, also if some of these run."""
        self._repository = repository
        self._engine = repository.engine
        self._user_id = user_id
        self._cancels = cancels
        self._project_folder = project_folder
        self._settle_seconds = settle_seconds
        self._end_seconds = end_seconds
        self.receipt = Receipt()

    async def erase(self) -> Receipt:
        """Erase the user; UserNotFoundError, UserBusyError (jobs run: nothing was deleted), StoreUnavailableError."""
        nodes, keys, receipt = self._engine.nodes, self._engine.keys, self.receipt
        has_account = await nodes.read("EXISTS", keys.user(self._user_id)) == 1
        if has_account:
            # One whose erasure was begun before is no user that can be changed.
            with suppress(UserNotFoundError):
                await self._repository.update_user_active(self._user_id, False)
        elif not await self._engine.webhooks.all(self._user_id) and not [
            one async for page in self._pages() for one in page
        ]:
            raise UserNotFoundError(self._user_id)
        await self._cancel_all()
        await begin_erasure(nodes, keys, self._user_id)
        await self._delete_jobs()
        if has_account:
            # A key is trusted for a moment by who has looked it up.
            await asyncio.sleep(self._settle_seconds)
            await self._delete_jobs()
        await self._drop_unreferenced()
        await self._rewrite_tickets()
        if receipt.left:
            return receipt
        hashes = {record.hash for record in await key_records(nodes, keys, self._user_id)}
        receipt.sessions = await end_sessions(nodes, keys, hashes)
        receipt.webhooks = await self._engine.webhooks.delete_of_user(self._user_id)
        receipt.api_keys = await delete_account(nodes, keys, self._user_id)
        receipt.accounts = int(has_account)
        await self._delete_jobs()
        return receipt

    async def _pages(self) -> AsyncIterator[list[tuple[str, JobState | StoreFormatError | None]]]:
        """Yield the user's jobs, by their places, which no deletion moves; those that haven't ended come first."""
        for tag, status in product(self._engine.keys.tags, JobStatus):
            after = "-"
            while True:
                command = ("ZRANGEBYLEX", jobs_key(tag, status, self._user_id), after, "+", "LIMIT", 0, PAGE_JOBS)
                [reply] = await self._engine.nodes.read_many([command])
                members = [] if reply is WRONG_TYPE else as_texts(reply)
                if not members:
                    break
                after = f"({members[-1]}"
                ids = [member_job_id(member) for member in members]
                jobs = [self._engine.keys.job(job_id) for job_id in ids]
                records = await read_records(self._engine.nodes, self._engine.reader.source, jobs)
                yield list(zip(ids, records, strict=True))

    async def _cancel_all(self) -> None:
        """Cancel what hasn't ended; UserBusyError before that, if something runs and may not be cancelled."""
        unended = [
            (job_id, record)
            async for page in self._pages()
            for job_id, record in page
            if isinstance(record, JobState) and record.status not in ENDED
        ]
        running = [job_id for job_id, record in unended if is_running(record)]
        if running and not self._cancels:
            raise UserBusyError(self._user_id, running)
        for job_id, record in unended:
            await self._cancel(job_id, record)

    async def _delete_jobs(self) -> None:
        """Delete all jobs that there are, one after the other; what can't be deleted is named."""
        self.receipt.left.clear()
        async for page in self._pages():
            for job_id, record in page:
                try:
                    await self._delete(job_id, record)
                except (StoreUnavailableError, OutcomeUnknownError, UserBusyError):
                    raise
                except JobNotFoundError:
                    # Somebody else deletes it.
                    pass
                except Exception as error:  # noqa: BLE001 - one job must not stop the others; it is named
                    self.receipt.left[job_id] = str(error)

    async def _delete(self, job_id: str, record: JobState | StoreFormatError | None) -> None:
        engine = self._engine
        if isinstance(record, StoreFormatError):
            raise record
        if record is None or record.user_id != self._user_id:
            raise StoreError(
                "it stands among the user's jobs, and its record says otherwise: run `ci-eventstore rebuild`"
            )
        if record.status not in ENDED:
            await self._cancel(job_id, record)
            await self._wait_for_end(job_id)
        self._remove_project(record)
        nodes, source, keys = engine.nodes, engine.reader.source, engine.keys.job(job_id)
        if await delete_job(nodes, source, keys, Reason.ASKED, self._user_id, marks_owner=False):
            self.receipt.jobs += 1

    async def _cancel(self, job_id: str, record: JobState) -> None:
        """Cancel a job, unless it was asked to end, or has ended meanwhile."""
        if record.cancel_line is None:
            with suppress(InvalidTransitionError, JobNotFoundError):
                await self._repository.cancel_job(job_id)
                self.receipt.cancelled += 1

    async def _wait_for_end(self, job_id: str) -> None:
        """Wait until a job has ended that was cancelled; UserBusyError if that takes too long."""
        deadline = asyncio.get_running_loop().time() + self._end_seconds
        while True:
            await self._engine.lost_jobs.look(job_id)
            found = await self._engine.jobs.state(job_id)
            if found is None or found.status in ENDED:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise UserBusyError(self._user_id, [job_id], were_cancelled=True)
            await asyncio.sleep(PAUSE_SECONDS)

    def _remove_project(self, record: JobState) -> None:
        """Remove a job's project: a regular file in the folder that was given, and nothing else."""
        if record.zip_file_path is None:
            return
        path, folder = Path(record.zip_file_path), self._project_folder
        try:
            if folder is None or path.parent.resolve() != folder.resolve() or not stat.S_ISREG(path.lstat().st_mode):
                self.receipt.projects_left += 1
                return
        except FileNotFoundError:
            return
        path.unlink(missing_ok=True)
        self.receipt.projects += 1

    async def _rewrite_tickets(self) -> None:
        """Write the tickets of all queues anew, and name the queues where the server's user may not do that."""
        nodes, keys = self._engine.nodes, self._engine.keys
        for name in await queue_names(nodes, keys.tags):
            try:
                for queue in queue_everywhere(keys, name):
                    await nodes.run(REWRITE_TICKETS, *REWRITE_TICKETS.order(RewriteTicketsCall(queue.dispatch)))
            except MissingRightsError:
                self.receipt.queues.append(name)

    async def _drop_unreferenced(self) -> None:
        """Drop what a sealer or a copy was making of deleted jobs: it would expire within an hour."""
        nodes, keys = self._engine.nodes, self._engine.keys
        async for page in nodes.scan(all_keys_pattern(keys)):
            made = [(key, *_unreferenced(key)) for key in page]
            made = [(key, tag, job_id) for key, tag, job_id in made if tag in keys.tags]
            asked = [("HEXISTS", gone_key(tag), job_id) for _, tag, job_id in made]
            gone = await nodes.read_many(asked) if asked else []
            for (key, _, _), is_gone in zip(made, gone, strict=True):
                if is_gone == 1:
                    await nodes.read("UNLINK", key)


def _unreferenced(key: str) -> tuple[str, str]:
    """Return the tag and the job of a key that may be there without the job; "" twice for others. Pure."""
    tag, _, rest = key.partition("}:")
    kind, _, name = rest.partition(":")
    return (f"{tag}}}", name.rpartition(":")[0]) if kind in ("segment", "staged") else ("", "")


def is_running(record: JobState | StoreFormatError | None) -> bool:
    """Return whether a job in this state is somebody's work at the moment. Pure."""
    return isinstance(record, JobState) and (record.status is JobStatus.RUNNING or record.claim is not None)


async def rewrite_files(nodes: Collection[Node], within_seconds: float = REWRITE_SECONDS) -> int:
    """Have each server write its files anew, and wait for it; return how many did; StoreError, StoreUnavailableError.

    The append-only file, if there is one, and the snapshot, if one was made or loaded.
    """
    rewritten = 0
    for node in nodes:
        info = await node.info()
        if not info:
            raise StoreError("INFO isn't allowed, which says what files the server has")
        has_snapshot = info.get("rdb_saves", "0") != "0" or info.get("rdb_last_load_keys_loaded", "0") != "0"
        if info.get("aof_enabled") == "1":
            await _write(node, "BGREWRITEAOF", within_seconds)
        if has_snapshot:
            await _write(node, "BGSAVE", within_seconds)
        rewritten += has_snapshot or info.get("aof_enabled") == "1"
    return rewritten


#: What `INFO` says of a server that writes its files, and whether the last time went well.
_AT_WORK = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
_OUTCOMES = {"BGREWRITEAOF": "aof_last_bgrewrite_status", "BGSAVE": "rdb_last_bgsave_status"}


async def _write(node: Node, command: str, within_seconds: float) -> None:
    """Write a file from now on: one that is being written already may have what has gone since."""
    try:
        async with asyncio.timeout(within_seconds):
            await _until_idle(node)
            await node.read(command)
            info = await _until_idle(node)
    except TimeoutError as error:
        raise StoreError(f"{command} takes longer than {within_seconds:.0f} s") from error
    if info.get(_OUTCOMES[command]) != "ok":
        raise StoreError(f"{command} failed: the server's log says why")


async def _until_idle(node: Node) -> dict[str, str]:
    while True:
        info = await node.info()
        if all(info.get(name, "0") == "0" for name in _AT_WORK):
            return info
        await asyncio.sleep(PAUSE_SECONDS)
