"""What each failure means for the command that got it: every reply of Redis 7 and 8 and Valkey 8 and 9, row by row.

The replies go through hiredis and redis-py as they do in a connection: an update of these that reads one of them
otherwise fails here.
"""

import re
import ssl
from pathlib import Path
from socket import gaierror
from types import MappingProxyType

import pytest
from hiredis import Reader
from redis import exceptions
from redis.asyncio.connection import DefaultParser

import ci_eventstore
from ci_eventstore.connection.connections import _parser_of
from ci_eventstore.connection.failures import MisledError, note_unreached, outcome_of, reply_of, translate
from ci_eventstore.connection.outcomes import (
    PAUSES_SECONDS,
    REDIRECTED,
    REDIRECTIONS,
    REPLIES,
    Effect,
    Kind,
    Outcome,
    Patience,
    Renew,
    Tries,
    of_reply,
)
from ci_eventstore.errors import (
    AuthenticationError,
    EmbeddedServerError,
    MissingRightsError,
    OutcomeUnknownError,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreUnavailableError,
    UnsuitableServerError,
)

IN_SCRIPT = " script: 9b5392298490cbd7955ec51802fb5928e415a02d, on @user_script:1."
IN_VALKEYS_SCRIPT = " script: on @user_script:1."
BUSY = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
OOM = "OOM command not allowed when used memory > 'maxmemory'."
READONLY = "READONLY You can't write against a read only replica."
NOREPLICAS = "NOREPLICAS Not enough good replicas to write."
MISCONF = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."
LATER, FAILOVER, FULL = Patience.REFUSAL, Patience.OUTAGE, Patience.FULL
TOLD = Patience.NONE

#: Reply, how long a read or a script is tried again, what is raised then, which connections are made anew.
ROWS: list[tuple[str, Patience, type[StoreError], Renew]] = [
    (BUSY, LATER, StoreUnavailableError, Renew.NONE),
    (BUSY.replace("Redis", "Valkey"), LATER, StoreUnavailableError, Renew.NONE),
    (BUSY.replace("SCRIPT", "FUNCTION"), LATER, StoreUnavailableError, Renew.NONE),
    ("BUSY Redis is busy running RedisModule", LATER, StoreUnavailableError, Renew.NONE),
    ("TRYAGAIN Multiple keys request during rehashing of slot", FAILOVER, StoreUnavailableError, Renew.NONE),
    ("INPROG Failover already in progress", LATER, StoreUnavailableError, Renew.NONE),
    ("ERR max number of clients reached", LATER, StoreUnavailableError, Renew.NONE),
    ("ERR max number of clients + cluster connections reached", LATER, StoreUnavailableError, Renew.NONE),
    ("ERR Script killed by user with SCRIPT KILL..." + IN_SCRIPT, LATER, StoreUnavailableError, Renew.NONE),
    ("ERR Script killed by user with SCRIPT KILL." + IN_VALKEYS_SCRIPT, LATER, StoreUnavailableError, Renew.NONE),
    (READONLY, FAILOVER, StoreUnavailableError, Renew.ALL),
    (READONLY + IN_SCRIPT, FAILOVER, StoreUnavailableError, Renew.ALL),
    (READONLY + IN_VALKEYS_SCRIPT, FAILOVER, StoreUnavailableError, Renew.ALL),
    ("MASTERDOWN Link with MASTER is down and …", FAILOVER, StoreUnavailableError, Renew.ALL),
    ("REDIRECT 127.0.0.1:6380", FAILOVER, StoreUnavailableError, Renew.ALL),
    ("UNBLOCKED force unblock from blocking operation, instance …", FAILOVER, StoreUnavailableError, Renew.ALL),
    ("FAILOVER the primary is changing", FAILOVER, StoreUnavailableError, Renew.ALL),
    ("LOADING Redis is loading the dataset in memory", Patience.LOADING, StoreUnavailableError, Renew.ALL),
    ("LOADING Valkey is loading the dataset in memory", Patience.LOADING, StoreUnavailableError, Renew.ALL),
    (NOREPLICAS, LATER, StoreUnavailableError, Renew.COMMANDS),
    (NOREPLICAS + IN_SCRIPT, LATER, StoreUnavailableError, Renew.COMMANDS),
    ("NOGOODSLAVE No suitable replica to promote", FAILOVER, StoreUnavailableError, Renew.COMMANDS),
    ("NOMASTERLINK Can't SYNC while not connected", FAILOVER, StoreUnavailableError, Renew.COMMANDS),
    ("NOQUORUM 1 usable Sentinels", FAILOVER, StoreUnavailableError, Renew.COMMANDS),
    ("CLUSTERDOWN The cluster is down", FAILOVER, StoreUnavailableError, Renew.COMMANDS),
    (OOM, FULL, StoreFullError, Renew.NONE),
    (OOM + IN_SCRIPT, FULL, StoreFullError, Renew.NONE),
    (MISCONF, FULL, StoreUnavailableError, Renew.NONE),
    ("MISCONF Errors writing to the AOF file: No space left on device", FULL, StoreUnavailableError, Renew.NONE),
    ("EXECABORT Transaction discarded because of: " + BUSY, LATER, StoreUnavailableError, Renew.NONE),
    ("EXECABORT Transaction discarded because of: " + OOM, FULL, StoreFullError, Renew.NONE),
    ("EXECABORT Transaction discarded because of previous errors.", TOLD, StoreError, Renew.NONE),
    ("NOAUTH Authentication required.", TOLD, AuthenticationError, Renew.COMMANDS),
    ("WRONGPASS invalid username-password pair or user is disabled.", TOLD, AuthenticationError, Renew.COMMANDS),
    ("DENIED Redis is running in protected mode because …", TOLD, AuthenticationError, Renew.COMMANDS),
    ("ERR AUTH <password> called without any password configured", TOLD, AuthenticationError, Renew.COMMANDS),
    ("ERR Client sent AUTH, but no password is set", TOLD, AuthenticationError, Renew.COMMANDS),
    ("ERR invalid password", TOLD, AuthenticationError, Renew.COMMANDS),
    ("NOPERM this user has no permissions to run the 'evalsha' command", TOLD, MissingRightsError, Renew.NONE),
    ("NOPERM User ci has no permissions to run the 'evalsha' command", TOLD, MissingRightsError, Renew.NONE),
    ("NOPERM No permissions to access a key", TOLD, MissingRightsError, Renew.NONE),
    ("ERR The user executing the script can't run this command or subcommand", TOLD, MissingRightsError, Renew.NONE),
    ("ERR ACL failure in script: No permissions to access a channel", TOLD, MissingRightsError, Renew.NONE),
    ("MOVED 866 127.0.0.1:7001", TOLD, UnsuitableServerError, Renew.NONE),
    ("MOVED", TOLD, UnsuitableServerError, Renew.NONE),
    ("ASK 866 127.0.0.1:7001", TOLD, UnsuitableServerError, Renew.NONE),
    ("CROSSSLOT Keys in request don't hash to the same slot", TOLD, UnsuitableServerError, Renew.NONE),
    ("NOPROTO unsupported protocol version", TOLD, UnsuitableServerError, Renew.NONE),
    ("NOSCRIPT No matching script. Please use EVAL.", TOLD, StoreError, Renew.NONE),
    ("NOSCRIPT No matching script.", TOLD, StoreError, Renew.NONE),
    ("EXPIRED the deadline of the call has passed", TOLD, StoreError, Renew.NONE),
    ("DAMAGED {ci:0}:job:a: it holds something of another type", TOLD, StoreFormatError, Renew.NONE),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", TOLD, StoreError, Renew.NONE),
    ("BUSYGROUP Consumer Group name already exists", TOLD, StoreError, Renew.NONE),
    ("BUSYKEY Target key name already exists.", TOLD, StoreError, Renew.NONE),
    ("NOGROUP No such key 's' or consumer group 'q'", TOLD, StoreError, Renew.NONE),
    ("UNKILLABLE Sorry the script already executed write commands", TOLD, StoreError, Renew.NONE),
    ("NOTBUSY No scripts in execution right now.", TOLD, StoreError, Renew.NONE),
    ("ERR unknown command 'FOO', with args beginning with: 'a'", TOLD, StoreError, Renew.NONE),
    ("ERR Unknown Redis command called from script" + IN_SCRIPT, TOLD, StoreError, Renew.NONE),
    ("ERR Unknown command called from script" + IN_VALKEYS_SCRIPT, TOLD, StoreError, Renew.NONE),
    ("ERR Protocol error: expected '$', got '+'", TOLD, StoreError, Renew.NONE),
    ("ERR Error compiling script (new function): user_script:1: …", TOLD, StoreError, Renew.NONE),
    ("ERR Error running script (call to f_9b53): @user_script:1: …", TOLD, StoreError, Renew.NONE),
    ("ERR user_script:1: attempt to index local 'x' (a nil value)" + IN_SCRIPT, TOLD, StoreError, Renew.NONE),
    ("ERR DB index is out of range", TOLD, StoreError, Renew.NONE),
    ("ERR This instance has cluster support disabled", TOLD, StoreError, Renew.NONE),
    ("ERR WAIT cannot be used with replica instances.", FAILOVER, StoreUnavailableError, Renew.ALL),
    ("ERR anything else", TOLD, StoreError, Renew.NONE),
]


def parsed(reply: str) -> Exception:
    """Return what a connection makes of an error reply."""
    reader = Reader(protocolError=exceptions.InvalidResponse, replyError=_parser_of(DefaultParser).parse_error)
    reader.feed(f"-{reply}\r\n".encode())
    error: Exception = reader.gets()
    return error


@pytest.mark.parametrize("kind", [Kind.READ, Kind.SCRIPT])
@pytest.mark.parametrize(("reply", "patience", "raised", "renew"), ROWS, ids=[row[0][:40] for row in ROWS])
def test_a_refusal_is_an_answer(
    reply: str, patience: Patience, raised: type[StoreError], renew: Renew, kind: Kind
) -> None:
    """Each reply says that nothing was executed; the table knows whether to try again, and its words are told."""
    error = parsed(reply)
    outcome = outcome_of(error, kind)
    assert (outcome.effect, outcome.patience, outcome.renew) == (Effect.NONE, patience, renew)
    told = translate(error, outcome, "append", "redis://h", is_unknown=False)
    assert type(told) is raised
    words = reply.removeprefix("DAMAGED ").removesuffix(IN_SCRIPT).removesuffix(IN_VALKEYS_SCRIPT)
    assert words in str(told)
    assert IN_SCRIPT not in str(told)
    assert IN_VALKEYS_SCRIPT not in str(told)


def test_every_row_is_tested() -> None:
    """A row that is added to the table has a reply here, and so has one of each word that redis-py knows."""
    used = {max((start for start in REPLIES if row[0].startswith(start)), key=len) for row in ROWS}
    assert used == set(REPLIES)
    assert set(DefaultParser.EXCEPTION_CLASSES) <= set(REPLIES)


def test_the_scripts_own_words_have_rows() -> None:
    """A script that refuses with a word of its own has changed nothing; the table knows the word."""
    sources = [path.read_text() for path in Path(ci_eventstore.__file__).parent.rglob("*.lua")]
    words = {word for source in sources for word in re.findall(r"error_reply\(['\"](\w+)", source)}
    assert {"DAMAGED", "EXPIRED", "NOPERM"} <= words <= set(REPLIES)


@pytest.mark.parametrize("reply", [row[0] for row in ROWS])
def test_the_servers_words_stay_whole(reply: str) -> None:
    """Whatever redis-py takes off a reply, it is known whole, also on connections that aren't ours."""
    assert reply_of(parsed(reply)) == reply
    plain = Reader(replyError=DefaultParser.parse_error)
    plain.feed(f"-{reply}\r\n".encode())
    try:
        error = plain.gets()
    except ValueError:
        assert reply == "MOVED"
    else:
        assert reply_of(error) == reply


def test_a_word_is_a_whole_word() -> None:
    """A reply that only begins as a row does isn't taken for it."""
    assert of_reply("BUSYBODY", Kind.READ) == Outcome()
    assert of_reply("OOM", Kind.READ).patience is FULL
    assert of_reply("OOMPH", Kind.READ) == Outcome()


def test_what_nobody_knows_may_have_been_executed() -> None:
    """A word that isn't Redis's comes from something in between, which may have passed a script on."""
    error = parsed("upstream failure")
    assert outcome_of(error, Kind.SCRIPT) == Outcome(Effect.UNKNOWN)
    assert outcome_of(error, Kind.READ) == Outcome(Effect.NONE)
    told = translate(error, outcome_of(error, Kind.SCRIPT), "append", "redis://h", is_unknown=True)
    assert isinstance(told, OutcomeUnknownError)
    assert "upstream failure" in str(told)


@pytest.mark.parametrize("reply", [row[0] for row in ROWS] + ["whatever"])
def test_a_wait_that_fails_follows_a_write_that_succeeded(reply: str) -> None:
    """What a server replies to WAIT doesn't undo the script before it."""
    outcome = of_reply(reply, Kind.WAIT)
    assert outcome.effect is Effect.DONE
    assert not outcome.is_passing


def caused(error: Exception, cause: Exception) -> Exception:
    error.__context__ = cause
    return error


def unreached(error: Exception) -> Exception:
    note_unreached(error)
    return error


def failed_start() -> Exception:
    error = exceptions.ConnectionError("the server doesn't start")
    error.__cause__ = EmbeddedServerError("its log says why")
    return error


def untrusted() -> Exception:
    return caused(exceptions.ConnectionError("Error 1 connecting"), ssl.SSLCertVerificationError("self-signed"))


def no_tls() -> Exception:
    plain = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    plain.reason = "WRONG_VERSION_NUMBER"
    return caused(exceptions.ConnectionError("Error 1 connecting"), plain)


#: What redis-py raises without a reply, the effect on a script, how long it is tried again, what is raised then.
SILENCES = MappingProxyType(
    {
        "reset": (exceptions.ConnectionError("Connection lost"), Effect.UNKNOWN, FAILOVER, StoreUnavailableError),
        "closed": (exceptions.ConnectionError("Connection closed"), Effect.UNKNOWN, FAILOVER, StoreUnavailableError),
        "timeout": (exceptions.TimeoutError("Timeout reading"), Effect.UNKNOWN, FAILOVER, StoreUnavailableError),
        "garbled": (exceptions.InvalidResponse("Protocol error"), Effect.UNKNOWN, TOLD, StoreUnavailableError),
        "refused": (
            caused(exceptions.ConnectionError("Error 111"), ConnectionRefusedError()),
            Effect.NONE,
            FAILOVER,
            StoreUnavailableError,
        ),
        "no socket": (
            caused(exceptions.ConnectionError("Error 2"), FileNotFoundError()),
            Effect.NONE,
            FAILOVER,
            StoreUnavailableError,
        ),
        "no such host": (
            caused(exceptions.ConnectionError("Error -2"), gaierror(-2, "Name or service not known")),
            Effect.NONE,
            FAILOVER,
            StoreUnavailableError,
        ),
        "reset while connecting": (
            unreached(exceptions.ConnectionError("Connection reset by peer")),
            Effect.NONE,
            FAILOVER,
            StoreUnavailableError,
        ),
        "timeout while connecting": (
            unreached(exceptions.TimeoutError("Timeout connecting to server")),
            Effect.NONE,
            FAILOVER,
            StoreUnavailableError,
        ),
        "no connection free": (
            unreached(exceptions.ConnectionError("No connection available.")),
            Effect.NONE,
            FAILOVER,
            StoreUnavailableError,
        ),
        "untrusted": (unreached(untrusted()), Effect.NONE, TOLD, StoreUnavailableError),
        "no TLS": (unreached(no_tls()), Effect.NONE, TOLD, StoreUnavailableError),
        "no Redis": (unreached(exceptions.InvalidResponse("HTTP/1.1")), Effect.NONE, TOLD, StoreUnavailableError),
        "failed start": (failed_start(), Effect.NONE, TOLD, EmbeddedServerError),
        "misled": (MisledError("is no Sentinel"), Effect.NONE, TOLD, UnsuitableServerError),
        "unsendable": (exceptions.DataError("Invalid input of type"), Effect.NONE, TOLD, StoreError),
    }
)


@pytest.mark.parametrize(("error", "effect", "patience", "raised"), SILENCES.values(), ids=SILENCES)
def test_silence_may_hide_an_effect(
    error: Exception, effect: Effect, patience: Patience, raised: type[StoreError]
) -> None:
    """Without a reply a script may have been executed, unless it was never sent; a read is as good as never sent."""
    outcome = outcome_of(error, Kind.SCRIPT)
    assert (outcome.effect, outcome.patience, outcome.renew) == (effect, patience, Renew.NONE)
    assert outcome_of(error, Kind.READ) == Outcome(Effect.NONE, outcome.patience, outcome.cause)
    assert type(translate(error, outcome, "append", "redis://h", is_unknown=False)) is raised


def test_tries_end_with_patience() -> None:
    """Pauses grow; the last try begins within the patience."""
    tries, now, pauses = Tries(100.0), 100.0, list[float]()
    while (pause := tries.pause_after(of_reply(BUSY, Kind.SCRIPT), now, 3.0)) is not None:
        pauses.append(pause)
        now += pause
    assert pauses == list(PAUSES_SECONDS)[: len(pauses)]
    assert 2.0 < now - 100.0 <= 3.0
    assert not tries.may_have_arrived


def test_one_try_that_may_have_arrived_is_remembered() -> None:
    """A refusal after a lost reply doesn't say that nothing was done."""
    tries = Tries(0.0)
    lost = outcome_of(exceptions.TimeoutError("Timeout"), Kind.SCRIPT)
    assert tries.pause_after(lost, 10.0, 20.0) is not None
    assert tries.pause_after(of_reply(READONLY, Kind.SCRIPT), 11.0, 20.0) is not None
    assert tries.may_have_arrived


def test_the_time_of_loading_doesnt_count() -> None:
    """A server that has loaded for a minute and then closes the connection is tried for as long as any other."""
    tries = Tries(0.0)
    loading = of_reply("LOADING Redis is loading the dataset in memory", Kind.SCRIPT)
    assert tries.pause_after(loading, 60.0, 300.0) is not None
    assert tries.pause_after(of_reply(READONLY, Kind.SCRIPT), 61.0, 20.0) is not None
    assert tries.pause_after(of_reply(READONLY, Kind.SCRIPT), 82.0, 20.0) is None


def test_redirections_cost_no_pause_unless_nodes_contradict_each_other() -> None:
    """A few are followed at once; then there are pauses, and an end."""
    tries = Tries(started=0.0)
    assert [tries.pause_after(REDIRECTED, 0.0, 20.0) for _ in range(REDIRECTIONS)] == [0.0] * REDIRECTIONS
    assert (tries.pause_after(REDIRECTED, 0.0, 20.0) or 0.0) > 0.0
    assert not tries.may_have_arrived
    assert tries.pause_after(REDIRECTED, 20.0, 20.0) is None
