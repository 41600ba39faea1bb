"""What all routes share."""

from collections.abc import Sequence

from fastapi import Request

from ci_common.errors import JobNotFoundError
from ci_common.validation import check_id
from ci_eventstore.accounts.sessions import SessionStore
from ci_eventstore.engine import Engine
from ci_eventstore.events.extent import Extent
from ci_eventstore.events.reader import EventReader
from ci_eventstore.following.incarnation import Incarnation
from ci_eventstore.jobs.state import JobState
from ci_eventstore.keys import JobKeys, probe_key
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.access_log import USER
from ci_eventstore.web.authentication import Authenticate, Caller, KeyAuthentication, OwnAuthentication
from ci_eventstore.web.errors import WebError
from ci_eventstore.web.open_streams import OpenStreams
from ci_eventstore.web.settings import WebSettings

#: What `ready` writes is gone after this.
PROBE_MS = 60_000


class Web:
    """The repository, who may use it, and what is open; only here routes meet what is below the repository."""

    def __init__(
        self, repository: RedisJobRepository, authenticate: Authenticate | None, settings: WebSettings
    ) -> None:
        self.repository = repository
        self.settings = settings
        self.streams = OpenStreams(settings.max_streams_per_user)
        #: How many requests couldn't be answered, since the process began.
        self.errors = 0
        self.keys = None if authenticate else KeyAuthentication(repository, lambda: self.sessions)
        self._authentication = OwnAuthentication(authenticate) if authenticate else self.keys

    @property
    def engine(self) -> Engine:
        """The open store in this event loop, of which routes see what follows; NotInitializedError."""
        return self.repository.engine

    @property
    def sessions(self) -> SessionStore:
        """Browsers' sessions."""
        return self.engine.sessions

    def log(self, job_id: str) -> tuple[EventReader, JobKeys]:
        """Return what reads a job's log, and where that is."""
        return self.engine.reader, self.engine.keys.job(check_id("job id", job_id))

    async def ready(self) -> None:
        """Open the repository if need be, and write something that expires; RepositoryError."""
        await self.repository.initialize()
        await self.engine.nodes.read("SET", probe_key(self.engine.keys), "1", "PX", PROBE_MS)

    async def caller(self, request: Request) -> Caller:
        """Return who asks, with the repository open; WebError 401, 403."""
        await self.repository.initialize()
        assert self._authentication is not None
        caller = await self._authentication.caller(request)
        request.scope[USER] = caller.user_id
        return caller

    async def state(self, job_id: str, user_id: str | None) -> JobState:
        """Return a job's state; JobNotFoundError, also for another user's job."""
        state = await self.engine.jobs.state(check_id("job id", job_id))
        if state is None or user_id not in (None, state.user_id):
            raise JobNotFoundError(job_id)
        return state

    async def incarnation(self, job: JobState | Extent) -> str:
        """Return the incarnation of a job, by what was read of it, and of its store, as clients are told them."""
        return str(Incarnation(job.incarnation, await self.engine.incarnation.read()))

    async def incarnations(self, job_ids: Sequence[str]) -> list[str]:
        """Return the incarnations of several jobs."""
        return [str(found) for found in await self.engine.incarnation.read_all(job_ids)]

    async def check_incarnation(self, job: JobState | Extent, known: str | None) -> None:
        """Refuse a client that has read another incarnation; WebError 409."""
        if known and known != await self.incarnation(job):
            text = "the store has lost or replaced what you have read of this job: begin again with its first event"
            raise WebError(409, "reset", text)
