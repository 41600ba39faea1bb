"""Start the embedded server when a connection needs it, and hold on to it."""

import asyncio
import os
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

from redis import exceptions
from redis.asyncio.connection import UnixDomainSocketConnection

from ci_eventstore.embedded.file_lock import FileLock
from ci_eventstore.embedded.runtime_folder import current_socket
from ci_eventstore.embedded.start import SILENCE_SECONDS, Start
from ci_eventstore.errors import ConfigurationError, EmbeddedServerError

_POLL_SECONDS = 0.01


class EmbeddedServer:
    """The one server of a data directory, as one process uses it.

    It runs while any process holds on to it, and ends after the last one's `release()` or death. It may be used from
    several threads. A child made by fork holds on to nothing until it calls `ensure_running()` itself.
    """

    def __init__(self, data_directory: Path) -> None:
        try:
            self._directory = Path(os.path.realpath(data_directory))
        except ValueError as error:
            raise ConfigurationError(f"the data directory {str(data_directory)!r} can't be used: {error}") from error
        self._mutex = threading.RLock()
        self._use: FileLock | None = None
        self._start: Start | None = None
        self._releases = 0
        _forget_locks_in_children()
        _servers.add(self)

    @property
    def socket_path(self) -> Path:
        """Where to connect to; it may change with each start of the server."""
        return current_socket(self._directory)

    @property
    def is_in_use(self) -> bool:
        """Whether this process holds on to the server, so that it isn't stopped."""
        use = self._use
        return use is not None and use.is_current()

    def ensure_running(self) -> None:
        """Hold on to the server, start it if it doesn't run, and wait until it takes commands; it does no harm twice.

        EmbeddedServerError: it can't be started or reached, the data directory can't be used, or `release()` was called
        meanwhile. It comes after 30 seconds without a sign of the server at the latest, or 10 minutes of loading.
        """
        releases = self._releases
        with self._mutex:
            self._check_wanted(releases)
            was_in_use = self.is_in_use
            try:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._hold_on(releases)
                self._reach(releases)
            except BaseException as error:
                if not was_in_use:
                    self._let_go()
                if isinstance(error, OSError):
                    raise self._unusable(error) from error
                raise

    def release(self) -> None:
        """Let go of the server, which ends soon after if nobody else uses it. It ends a running `ensure_running()`."""
        self._releases += 1
        with self._mutex:
            self._let_go()

    def _hold_on(self, releases: int) -> None:
        if self.is_in_use:
            return
        self._let_go()
        deadline = time.monotonic() + SILENCE_SECONDS
        while (use := FileLock.take(self._directory / "users.lock", shared=True)) is None:
            self._pause(releases)
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"the last server of {self._directory} is being stopped, but doesn't end")
        self._use = use

    def _let_go(self) -> None:
        use, self._use = self._use, None
        if use is not None:
            use.close()

    def _reach(self, releases: int) -> None:
        self._start = Start(self._directory)
        while not self._start.advance():
            self._pause(releases)
        self._start = None

    def _pause(self, releases: int) -> None:
        self._check_wanted(releases)
        time.sleep(_POLL_SECONDS)

    def _check_wanted(self, releases: int) -> None:
        if self._releases != releases:
            raise EmbeddedServerError(f"the server of {self._directory} was released while it was waited for")

    def _unusable(self, error: OSError) -> EmbeddedServerError:
        reason = "it isn't a folder" if os.path.isfile(self._directory) else error
        return EmbeddedServerError(f"{self._directory} can't be used for an embedded server: {reason}")

    def _forget_locks(self) -> None:
        self._mutex = threading.RLock()
        self._let_go()
        if self._start is not None:
            self._start.forget_lock()


_servers: WeakSet[EmbeddedServer] = WeakSet()


@cache
def _forget_locks_in_children() -> None:
    """Have children made by fork close the locks: they would keep the server running after their parent's death."""

    def forget() -> None:
        for server in list(_servers):
            server._forget_locks()

    os.register_at_fork(after_in_child=forget)


class EmbeddedConnection(UnixDomainSocketConnection):
    """A connection that starts the server of which it is one, at first and again when it is gone.

    Connecting raises redis-py's ConnectionError; if the server can't be started, with EmbeddedServerError as its cause.
    """

    def __init__(self, *, server: EmbeddedServer, **options: Any) -> None:
        super().__init__(**options)
        self._server = server

    async def _connect(self) -> None:
        if not self._server.is_in_use:
            await asyncio.to_thread(self._server.ensure_running)
        try:
            await self._connect_to_socket()
        except (FileNotFoundError, ConnectionRefusedError, exceptions.ConnectionError):
            # redis-py raises the last one when a server is killed that has just accepted the connection.
            await self.disconnect(nowait=True)
            await asyncio.to_thread(self._server.ensure_running)
            await self._connect_to_socket()

    async def _connect_to_socket(self) -> None:
        self.path = str(self._server.socket_path)
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py gives it no types
