"""What all routes share: the settings, the open store, and who may use it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastapi import Request

from ci_common.errors import JobNotFoundError
from ci_common.validation import check_id, check_texts
from ci_eventstore.engine import Engine
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.events.reader import EventReader, Extent
from ci_eventstore.following.incarnation import Incarnation
from ci_eventstore.jobs.state import JobState
from ci_eventstore.keys import JobKeys, account_key
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.settings import check_number
from ci_eventstore.web.access_log import USER
from ci_eventstore.web.authentication import Authenticate, Caller, KeyAuthentication, caller_of
from ci_eventstore.web.errors import WebError
from ci_eventstore.web.streams.response import OpenStreams
from ci_eventstore.webhooks.addresses import networks_of

#: A shorter heartbeat would keep each stream busy with nothing.
SHORTEST_HEARTBEAT_SECONDS = 0.01
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")
#: The key that `ready` writes expires after this.
PROBE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """The settings of the web server; ConfigurationError for invalid ones."""

    #: The folder for jobs' zip files, which controllers find under the same path; None: the server takes none.
    project_folder: Path | None = None
    #: The largest zip file accepted.
    max_project_bytes: int = 100 * 1024 * 1024
    #: The queues that users may put jobs into; None: any. A caller who may see all jobs may use any.
    queues: frozenset[str] | None = frozenset({"default"})
    #: Other sites whose pages may send requests with a key, such as https://ci.example, or "*"; none may use sessions.
    cors_origins: tuple[str, ...] = ()
    #: Addresses and networks that webhooks may have by their numbers although they aren't public, as whoever sends has.
    webhook_allow: tuple[str, ...] = ()
    #: At most this many streams of one user are open in this process.
    max_streams_per_user: int = 100
    #: An idle stream sends a comment this often, and the server checks this often whether the client may still read.
    heartbeat_seconds: float = 15.0

    def __post_init__(self) -> None:
        """Check all settings; ConfigurationError."""
        check_number(self, "max_project_bytes", 1, is_whole=True)
        check_number(self, "max_streams_per_user", 1, is_whole=True)
        check_number(self, "heartbeat_seconds", SHORTEST_HEARTBEAT_SECONDS)
        for queue in check_texts("queues", self.queues or ()):
            check_id("queue", queue)
        for origin in check_texts("cors_origins", self.cors_origins):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigurationError(f"cors_origins={origin!r} must be like https://ci.example:8443, or *")
        try:
            networks_of(check_texts("webhook_allow", self.webhook_allow))
        except ValueError as error:
            raise ConfigurationError(f"webhook_allow={self.webhook_allow!r}: {error}") from None
        if self.project_folder is not None and not isinstance(self.project_folder, Path):
            raise ConfigurationError(f"project_folder={self.project_folder!r} must be a Path")
        if self.project_folder is not None and not self.project_folder.is_absolute():
            raise ConfigurationError(f"project_folder={str(self.project_folder)!r} must be an absolute path")


class Web:
    """The repository, its users and the open streams; all that routes see of what is below the repository."""

    def __init__(
        self, repository: RedisJobRepository, authenticate: Authenticate | None, settings: WebSettings
    ) -> None:
        self.repository = repository
        self.settings = settings
        self.streams = OpenStreams(settings.max_streams_per_user)
        #: How many requests were answered with an error of the server's since the process began.
        self.errors = 0
        keys = KeyAuthentication(repository)
        self.keys = None if authenticate else keys
        self._find = partial(caller_of, authenticate) if authenticate else keys.caller

    @property
    def engine(self) -> Engine:
        """The open store in this event loop; NotInitializedError."""
        return self.repository.engine

    def log(self, job_id: str) -> tuple[EventReader, JobKeys]:
        """Return the reader of logs, and a job's keys; InvalidInputError for what is no id."""
        return self.engine.reader, self.engine.keys.job(check_id("job id", job_id))

    async def ready(self) -> None:
        """Open the repository if need be, and write something that expires; RepositoryError."""
        await self.repository.initialize()
        await self.engine.nodes.read("SET", account_key(self.engine.keys, "probe"), "1", "PX", PROBE_MS)

    async def caller(self, request: Request) -> Caller:
        """Open the repository if need be, and return who sent a request; WebError 401, 403."""
        await self.repository.initialize()
        caller = await self._find(request)
        request.scope[USER] = caller.user_id
        return caller

    async def state(self, job_id: str, user_id: str | None) -> JobState:
        """Return a job's state; JobNotFoundError, also for another user's job, JobGoneError."""
        state = await self.engine.jobs.known_state(check_id("job id", job_id))
        if state is None or user_id not in (None, state.user_id):
            raise JobNotFoundError(job_id)
        return state

    async def incarnation(self, job: JobState | Extent) -> str:
        """Return the incarnation of a job and its store as clients know it, by what was read of the job."""
        return str(Incarnation(job.incarnation, await self.engine.incarnation.read()))

    async def incarnations(self, job_ids: Sequence[str]) -> list[str]:
        """Return the incarnations of several jobs."""
        return [str(found) for found in await self.engine.incarnation.read_all(job_ids)]

    async def check_incarnation(self, job: JobState | Extent, known: str | None) -> None:
        """Refuse a client that has read another incarnation; WebError 409."""
        if known:
            check_same(await self.incarnation(job), known)


def check_same(incarnation: str, known: str | None) -> None:
    """Refuse a client that has read another incarnation than that of the job; WebError 409. Pure."""
    if known and known != incarnation:
        text = "the store has lost or replaced what you have read of this job: begin again with its first event"
        raise WebError(409, "reset", text)
