"""When a command is sent again, and what its failure means. Pure."""

from collections.abc import Iterator
from socket import gaierror

from redis import exceptions

from ci_eventstore.errors import EmbeddedServerError

#: The pause before each further try; the last one repeats.
PAUSES_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)

_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.OutOfMemoryError,
)
#: The server's own word that it didn't execute the command.
_REFUSED = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.OutOfMemoryError,
)
_LASTING = (exceptions.AuthenticationError, exceptions.AuthorizationError)
_NO_CONNECTION = (ConnectionRefusedError, FileNotFoundError, PermissionError, gaierror, EmbeddedServerError)


def pauses() -> Iterator[float]:
    """Yield the pauses between tries, in seconds, without end."""
    yield from PAUSES_SECONDS
    while True:
        yield PAUSES_SECONDS[-1]


def is_passing(error: Exception) -> bool:
    """Tell whether the same command may succeed later."""
    return isinstance(error, _PASSING) and not isinstance(error, _LASTING) and not failed_start(error)


def failed_start(error: Exception) -> EmbeddedServerError | None:
    """Return why the embedded server didn't start, if that is what the error is about."""
    return error.__cause__ if isinstance(error.__cause__, EmbeddedServerError) else None


def was_never_executed(error: Exception) -> bool:
    """Tell whether it is certain that the command had no effect: it wasn't sent, or it was refused."""
    return isinstance(error, _REFUSED) or (
        isinstance(error, exceptions.ConnectionError)
        and isinstance(error.__cause__ or error.__context__, _NO_CONNECTION)
    )
