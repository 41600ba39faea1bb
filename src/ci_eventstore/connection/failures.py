"""Read what redis-py raises, and raise ours instead: the one place that knows both."""

import re
from collections.abc import Iterable, Mapping
from socket import gaierror

from redis import exceptions

from ci_eventstore.connection.outcomes import Cause, Kind, Outcome, Silence, of_reply, of_silence
from ci_eventstore.connection.tls import is_lasting, sentence_of
from ci_eventstore.errors import (
    ACCOUNTS,
    AuthenticationError,
    EmbeddedServerError,
    MissingRightsError,
    OutcomeUnknownError,
    Partition,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreUnavailableError,
    UnsuitableServerError,
    name_of,
)

_NO_CONNECTION = (ConnectionRefusedError, FileNotFoundError, PermissionError, gaierror)
#: The end of a script's error: the line of the script that raised it.
_SCRIPT_PLACE = re.compile(r"\s+script: (?:[0-9a-f]{40}, )?on @user_script:\d+\.?$")


class MisledError(exceptions.ConnectionError):
    """Raised when something else stands at an address than its URL says: nothing was sent, and that lasts."""


def note_reply(error: Exception, reply: str) -> None:
    """Keep the server's own words: redis-py takes the first one off those that it knows."""
    vars(error)["reply"] = reply


def note_unreached(error: BaseException) -> None:
    """Note that there was no connection: nothing can have been sent."""
    vars(error)["is_unreached"] = True


def reply_of(error: Exception) -> str | None:
    """Return what the server replied, in its own words; None if there was no reply."""
    noted: str | None = vars(error).get("reply")
    if noted is not None:
        return noted
    # Of connections that aren't ours to make, such as those of `fakeredis`.
    code = getattr(error, "status_code", None)
    if code:
        return f"{code} {error}"
    return str(error) if isinstance(error, exceptions.ResponseError) else None


def outcome_of(error: Exception, kind: Kind) -> Outcome:
    """Return what an error of redis-py's means for a command. Pure."""
    reply = reply_of(error)
    return of_silence(_silence_of(error), kind) if reply is None else of_reply(reply, kind)


def _silence_of(error: Exception) -> Silence:
    if failed_start(error):
        return Silence.FAILED_START
    if isinstance(error, MisledError):
        return Silence.MISLED
    is_connecting = bool(vars(error).get("is_unreached"))
    if isinstance(error, exceptions.InvalidResponse):
        return Silence.MISMATCHED if is_connecting else Silence.GARBLED
    if is_connecting or isinstance(error.__cause__ or error.__context__, _NO_CONNECTION):
        return Silence.MISMATCHED if is_lasting(error) else Silence.UNREACHED
    is_lost = isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError)
    return Silence.LOST if is_lost else Silence.UNSENDABLE


def failed_start(error: Exception) -> EmbeddedServerError | None:
    """Return why the embedded server didn't start, if that is what the error is about."""
    return error.__cause__ if isinstance(error.__cause__, EmbeddedServerError) else None


def words_of(error: Exception) -> str:
    """Return the server's own words, without the place in a script, else what is wrong with TLS, else redis-py's."""
    return _SCRIPT_PLACE.sub("", reply_of(error) or sentence_of(error) or str(error))


#: The error to raise for each cause, and its message.
_TOLD: Mapping[Cause, tuple[type[StoreError], str]] = {
    Cause.UNAVAILABLE: (StoreUnavailableError, "{where}: {words}"),
    Cause.FULL: (
        StoreFullError,
        "{where} is out of memory and takes no writes: raise its maxmemory, or delete jobs ({words})",
    ),
    Cause.ACCESS: (AuthenticationError, "{where} refuses access: {words}. Put user and password into the URL"),
    Cause.RIGHTS: (MissingRightsError, "{where}, {what}: the user lacks a right: {words}"),
    Cause.DAMAGED: (StoreFormatError, "{where}, {what}: {words}. Nothing was changed; run `ci-eventstore rebuild`"),
    Cause.UNSUITABLE: (UnsuitableServerError, "{where} can't hold the store: {words}"),
}


def translate(
    error: Exception, outcome: Outcome, what: str, where: str, *, is_unknown: bool, partition: Partition | None = None
) -> Exception:
    """Return our error for one of redis-py's; `is_unknown` if some try of the command may have taken effect.

    It names the partition that the command was for, if one is given.
    """
    words = words_of(error).removeprefix("DAMAGED ")
    if is_unknown:
        return OutcomeUnknownError(what, reply_of(error))
    kind, text = _TOLD.get(outcome.cause, (StoreError, "{where}, {what}: {words}"))
    place = where if partition is None else f"{name_of(partition)} at {where}"
    told = failed_start(error) or kind(text.format(where=place, what=what, words=words))
    if isinstance(told, StoreUnavailableError):
        told.partition = partition
    return told


def tag_in(word: str | int | bytes) -> str | None:
    """Return the hash tag in a word of a command, with its braces."""
    text = word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
    start, end = text.find("{"), text.find("}")
    return text[start : end + 1] if 0 <= start < end else None


def partition_of(words: Iterable[str | int | bytes]) -> Partition | None:
    """Return the partition that a command with these words is for, as its first hash tag says; None if none does."""
    name = (next(filter(None, map(tag_in, words)), None) or "").strip("{}").rpartition(":")[2]
    if name == ACCOUNTS:
        return ACCOUNTS
    return int(name) if name.isdecimal() else None
