"""What each failure of a command means for it: whether it took effect, and when it is sent again. Pure: one table.

A refusal is an answer: the server executed nothing. Only where no answer came can a command have had its effect.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Kind(Enum):
    """What kind of command failed."""

    #: It changes nothing, or does no harm if it is done twice.
    READ = "read"
    #: A script. Scripts check all that may fail before their first write.
    SCRIPT = "script"
    #: `WAIT`, asked after a script that succeeded on the same connection.
    WAIT = "wait"


class Effect(Enum):
    """Whether the command took effect."""

    NONE = "none"
    UNKNOWN = "unknown"
    DONE = "done"


class Patience(Enum):
    """How long the same command is tried again."""

    #: No longer: it would fail again.
    NONE = "none"
    #: The server, or one that takes writes, can't be reached; a restart or a failover takes some seconds.
    OUTAGE = "outage"
    #: The server refuses the command for now; that passes by itself.
    REFUSAL = "refusal"
    #: Memory or disk is full, which seldom passes by itself.
    FULL = "full"
    #: The server reads its data, which takes as long as there is data.
    LOADING = "loading"
    #: Another node has the key, and is known.
    ELSEWHERE = "elsewhere"


class Renew(Enum):
    """Which connections are renewed before the next try, since the address may lead to another server by now."""

    NONE = "none"
    #: Those that carry commands.
    COMMANDS = "commands"
    #: Those that listen to channels as well.
    ALL = "all"


class Cause(Enum):
    """Why a command failed for good: it chooses the error that is raised."""

    UNAVAILABLE = "unavailable"
    FULL = "full"
    #: The server doesn't know the user, or refuses access.
    ACCESS = "access"
    #: The user lacks a right.
    RIGHTS = "rights"
    UNSUITABLE = "unsuitable"
    #: A script found a key or a field that holds what it can't.
    DAMAGED = "damaged"
    #: The script isn't known: it is sent again with its text.
    NO_SCRIPT = "no script"
    #: The script came after its deadline: it is sent again with another one.
    EXPIRED = "expired"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a failure means for its command."""

    effect: Effect = Effect.NONE
    patience: Patience = Patience.NONE
    cause: Cause = Cause.OTHER
    renew: Renew = Renew.NONE

    @property
    def is_passing(self) -> bool:
        """Whether the same command may succeed later."""
        return self.patience is not Patience.NONE


def _again(patience: Patience = Patience.REFUSAL, renew: Renew = Renew.NONE) -> Outcome:
    return Outcome(Effect.NONE, patience, Cause.FULL if patience is Patience.FULL else Cause.UNAVAILABLE, renew)


def _told(cause: Cause = Cause.OTHER, renew: Renew = Renew.NONE) -> Outcome:
    return Outcome(Effect.NONE, Patience.NONE, cause, renew)


_ANOTHER_SERVER = _again(Patience.OUTAGE, Renew.ALL)
_NOT_REPLICATED = Outcome(Effect.DONE, renew=Renew.COMMANDS)
_NO_RIGHT = _told(Cause.RIGHTS)
_NO_ACCESS = _told(Cause.ACCESS, Renew.COMMANDS)
_CLUSTER = _told(Cause.UNSUITABLE)
#: What MOVED and ASK mean to a client that knows the cluster.
REDIRECTED = _again(Patience.ELSEWHERE)
#: What it means that no node serves a slot.
UNSERVED = _again(Patience.OUTAGE)

#: Outcomes for reads and scripts by the beginning of the error reply; the longest match decides.
REPLIES: Mapping[str, Outcome] = MappingProxyType(
    {
        # Soon over.
        "BUSY": _again(),
        # A slot is moved key by key, and this command's are on both sides.
        "TRYAGAIN": _again(Patience.OUTAGE),
        "INPROG": _again(),
        "ERR max number of clients": _again(),
        "ERR Script killed by user": _again(),
        # The server isn't, or may not be, the primary any more.
        "READONLY": _ANOTHER_SERVER,
        "MASTERDOWN": _ANOTHER_SERVER,
        "REDIRECT": _ANOTHER_SERVER,
        "UNBLOCKED": _ANOTHER_SERVER,
        "ERR WAIT cannot be used with replica": _ANOTHER_SERVER,
        "FAILOVER": _ANOTHER_SERVER,
        "LOADING": _again(Patience.LOADING, Renew.ALL),
        "NOREPLICAS": _again(renew=Renew.COMMANDS),
        "NOGOODSLAVE": _again(Patience.OUTAGE, Renew.COMMANDS),
        "NOMASTERLINK": _again(Patience.OUTAGE, Renew.COMMANDS),
        "NOQUORUM": _again(Patience.OUTAGE, Renew.COMMANDS),
        "CLUSTERDOWN": _again(Patience.OUTAGE, Renew.COMMANDS),
        # No room.
        "OOM": _again(Patience.FULL),
        "MISCONF": Outcome(Effect.NONE, Patience.FULL, Cause.UNAVAILABLE),
        # Not let in.
        "NOAUTH": _NO_ACCESS,
        "WRONGPASS": _NO_ACCESS,
        "DENIED": _NO_ACCESS,
        "ERR AUTH": _NO_ACCESS,
        "ERR Client sent AUTH": _NO_ACCESS,
        "ERR invalid password": _NO_ACCESS,
        # Not allowed. In a script, Redis and Valkey use other words.
        "NOPERM": _NO_RIGHT,
        "ERR The user executing the script": _NO_RIGHT,
        "ERR ACL failure in script": _NO_RIGHT,
        # Another kind of server: to a client that knows no cluster.
        "MOVED": _CLUSTER,
        "ASK": _CLUSTER,
        "CROSSSLOT": _CLUSTER,
        "NOPROTO": _told(Cause.UNSUITABLE),
        # Answers to one command.
        "NOSCRIPT": _told(Cause.NO_SCRIPT),
        "EXPIRED": _told(Cause.EXPIRED),
        "DAMAGED": _told(Cause.DAMAGED),
        "WRONGTYPE": _told(),
        "BUSYGROUP": _told(),
        "NOGROUP": _told(),
        "BUSYKEY": _told(),
        "UNKILLABLE": _told(),
        "NOTBUSY": _told(),
        "EXECABORT": _told(),
        "ERR Error running script": _told(),
        "ERR": _told(),
    }
)

#: An aborted transaction's error begins so; the reason follows.
_GIVEN_UP = "EXECABORT Transaction discarded because of: "


def of_reply(reply: str, kind: Kind) -> Outcome:
    """Return the outcome for a command to which the server replied an error."""
    if reply.startswith(_GIVEN_UP):
        return of_reply(reply.removeprefix(_GIVEN_UP), kind)
    found = max((start for start in REPLIES if _begins(reply, start)), key=len, default="")
    if kind is Kind.WAIT:
        renew = REPLIES[found].renew if found else Renew.NONE
        return _NOT_REPLICATED if renew is not Renew.ALL else Outcome(Effect.DONE, renew=Renew.ALL)
    if found:
        return REPLIES[found]
    # A word that neither Redis nor Valkey has comes from something in between, which may have passed the command on.
    return Outcome(Effect.UNKNOWN if kind is Kind.SCRIPT else Effect.NONE)


def _begins(reply: str, start: str) -> bool:
    return reply.startswith(start) and (" " in start or reply[len(start) :][:1] in ("", " "))


class Silence(Enum):
    """Why there was no reply."""

    #: The connection ended, or nothing came in time, after the command had left.
    LOST = "lost"
    #: There was no connection to send it on.
    UNREACHED = "unreached"
    #: Something answers, but isn't usable: its certificate isn't trusted, only one side speaks TLS, or it isn't Redis.
    MISMATCHED = "mismatched"
    #: Something else stands at the address than its URL says.
    MISLED = "misled"
    #: The embedded server doesn't start.
    FAILED_START = "failed start"
    #: What came over an established connection isn't Redis's protocol.
    GARBLED = "garbled"
    #: The command was never sent, as it can't be.
    UNSENDABLE = "unsendable"


def of_silence(silence: Silence, kind: Kind) -> Outcome:
    """Return the outcome for a command that got no reply."""
    lost = Effect.NONE if kind is Kind.READ else Effect.UNKNOWN
    match silence:
        case Silence.LOST:
            return Outcome(lost, Patience.OUTAGE, Cause.UNAVAILABLE)
        case Silence.GARBLED:
            return Outcome(lost, Patience.NONE, Cause.UNAVAILABLE)
        case Silence.UNREACHED:
            return Outcome(Effect.NONE, Patience.OUTAGE, Cause.UNAVAILABLE)
        case Silence.MISMATCHED | Silence.FAILED_START:
            return Outcome(Effect.NONE, Patience.NONE, Cause.UNAVAILABLE)
        case Silence.MISLED:
            return _told(Cause.UNSUITABLE)
        case Silence.UNSENDABLE:
            return Outcome()


#: So often a command goes on to another node without a pause; more often, nodes contradict each other.
REDIRECTIONS = 5
#: The pause before each further try; the last one repeats.
PAUSES_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


def pauses() -> Iterator[float]:
    """Yield the pauses between tries, in seconds, without end."""
    yield from PAUSES_SECONDS
    while True:
        yield PAUSES_SECONDS[-1]


@dataclass(slots=True)
class Tries:
    """The tries of one command so far."""

    #: The local monotonic time, in seconds, from which patience counts.
    started: float
    failed: int = 0
    #: Whether one of them may have taken effect.
    may_have_arrived: bool = False
    _last: Patience = Patience.NONE
    _redirections: int = 0

    def pause_after(self, outcome: Outcome, now: float, patience_seconds: float) -> float | None:
        """Note a failed try, and return how long to pause before the next one; None if there is none."""
        self.may_have_arrived = self.may_have_arrived or outcome.effect is not Effect.NONE
        if self._last is Patience.LOADING and outcome.patience is not Patience.LOADING:
            # Loading doesn't count: failures after it get the full patience.
            self.started = now
        self._last = outcome.patience
        if outcome.patience is Patience.ELSEWHERE:
            self._redirections += 1
        pause = PAUSES_SECONDS[min(self.failed, len(PAUSES_SECONDS) - 1)]
        self.failed += 1
        if outcome.patience is Patience.ELSEWHERE and self._redirections <= REDIRECTIONS:
            pause = 0.0
        if not outcome.is_passing or now - self.started + pause > patience_seconds:
            return None
        return pause
