"""What a server must be, and which rights the store's user needs on it: checked when a store is opened.

Servers are judged by what `INFO` says, since managed ones forbid `CONFIG`.

Commands are written as they are sent, with names of keys and channels in braces; a key stands for all of its kind, as
`{ci:0}:job:*` does in an ACL. A script that runs none of them asks about a writer's commands (`ACL DRYRUN` needs
`@admin`); a reader, who may not run scripts, tries them.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ci_common.models import JobStatus
from ci_eventstore.connection.addresses import Place
from ci_eventstore.connection.failures import outcome_of, reply_of, tag_in
from ci_eventstore.connection.link import try_each, try_listening
from ci_eventstore.connection.node import Node
from ci_eventstore.connection.nodes import Nodes, servers_of
from ci_eventstore.connection.outcomes import Cause, Kind
from ci_eventstore.connection.routes import never_key
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import MissingRightsError, OutcomeUnknownError, StoreError, UnsuitableServerError
from ci_eventstore.keys import (
    JobKeys,
    Keys,
    QueueKeys,
    account_key,
    facts_key,
    gone_key,
    jobs_key,
    queues_key,
    replicated_key,
    segment_key,
    sweeper_key,
    unsealable_key,
)

#: Redis 7.0 replicates the effects of scripts and reads streams as this store needs; Valkey began with 7.2.
MINIMUM_VERSION = (7, 0)


def check_server(info: Mapping[str, str], *, kind: Place = "server", is_read_only: bool = False) -> None:
    """Raise UnsuitableServerError unless the server may hold the store; a value that `INFO` leaves out counts as good.

    `kind` is what the URL says. A reader may use a replica, however the server treats writes.
    """
    version = info.get("redis_version", "")
    if version and _parse(version) < MINIMUM_VERSION:
        raise UnsuitableServerError(f"the server is Redis {version}: Redis 7.0, or Valkey 8, is the oldest that works")
    mode = info.get("redis_mode") or info.get("server_mode")
    if mode == "sentinel":
        raise UnsuitableServerError(
            "a Sentinel answers, which holds no data: write redis+sentinel://HOST:PORT/NAME, with the name by which "
            "it knows the server"
        )
    if mode == "cluster" and kind != "cluster":
        raise UnsuitableServerError("the server is a node of a cluster: write redis+cluster://HOST:PORT")
    if mode == "standalone" and kind == "cluster":
        raise UnsuitableServerError("the server is no node of a cluster: write redis://HOST:PORT")
    if is_read_only:
        return
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise UnsuitableServerError(
            f"the server's maxmemory-policy is {policy}, so it may throw jobs away: set it to noeviction"
        )
    if info.get("role") == "slave":
        raise UnsuitableServerError("the server is a replica, which takes no writes: use the address of its primary")


def check_slots(unserved: int) -> None:
    """Raise UnsuitableServerError unless each slot of a cluster has a node, whether that is there at the moment or not.

    Some partitions could never be reached, and more of them after each change of the cluster.
    """
    if unserved:
        raise UnsuitableServerError(
            f"the cluster doesn't serve {unserved} of its 16384 slots: give them to nodes (redis-cli --cluster fix)"
        )


def may_lose_writes(info: Mapping[str, str]) -> bool:
    """Tell whether a primary goes on taking writes when it is cut off from its replicas, one of which may replace it.

    `INFO` counts good replicas if `min-replicas-to-write` asks for some.
    """
    return info.get("role") == "master" and "min_slaves_good_slaves" not in info


def _parse(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


class RightsCall(NamedTuple):
    """What `rights.lua` is called with."""

    #: The parts of each, joined by newlines, which no name of a key has.
    commands: Sequence[str]


RIGHTS = load_script("ci_eventstore", "rights", call=RightsCall)

#: A command and its arguments.
Command = tuple[str, ...]

#: What reads jobs and follows them.
READING = """
    HMGET {store} f
    HGETALL {job} | HGET {job} f | HMGET {job} f | EXISTS {job}
    EXISTS {events} | XRANGE {events} - + | XREVRANGE {events} + -
    HEXISTS {gone} f | HGET {gone} f
    LRANGE {index} 0 -1 | HGETALL {ring} | GETRANGE {segment} 0 1
    ZRANGEBYLEX {jobs} - + | ZREVRANGEBYLEX {jobs} + - | ZRANGEBYLEX {owned} - + | ZREVRANGEBYLEX {owned} + -
    MULTI | EXEC
"""
LISTENING = "SUBSCRIBE {events}"

#: What is said in a cluster in place of what is said to one server.
SHARDED = {"PUBLISH": "SPUBLISH", "SUBSCRIBE": "SSUBSCRIBE", "NUMSUB": "SHARDNUMSUB"}

#: What writes jobs, runs them and looks after queues.
WRITING = """
    EVAL s 0 | EVALSHA s 0 | TIME
    EXISTS {store} | HGET {store} f | HSET {store} f v | HSETNX {store} f v
    EVALSHA s 1 {job} | HSET {job} f v | HDEL {job} f | DEL {job} | PERSIST {job}
    EVALSHA s 1 {events} | XADD {events} * f v
    EVALSHA s 1 {calls} | HGET {calls} f | HGETALL {calls} | HLEN {calls} | HSET {calls} f v | HDEL {calls} f
    PEXPIRE {calls} 1
    EVALSHA s 1 {index} | LINDEX {index} -1 | RPUSH {index} v | DEL {index}
    UNLINK {index} | UNLINK {events}
    SET {sealer} v | GET {sealer} | PEXPIRE {sealer} 1 | DEL {sealer}
    SET {archiver} v | GET {archiver} | PEXPIRE {archiver} 1 | DEL {archiver}
    HMGET {unsealable} f | HSET {unsealable} f v | HDEL {unsealable} f | ZRANGEBYSCORE {unsealed} 0 1
    EVALSHA s 1 {segment} | STRLEN {segment} | SET {segment} v | PERSIST {segment} | UNLINK {segment}
    EVALSHA s 1 {ring} | HGET {ring} f | HMGET {ring} f | HSET {ring} f v | HDEL {ring} f | HLEN {ring}
    DEL {ring}
    EVALSHA s 1 {ids} | ZADD {ids} 0 m | ZREM {ids} m | ZSCORE {ids} m | ZCARD {ids}
    EVALSHA s 1 {ended} | ZADD {ended} 0 m | ZREM {ended} m | ZSCORE {ended} m | ZCARD {ended}
    ZRANGEBYLEX {ended} - +
    EVALSHA s 1 {unsealed} | ZADD {unsealed} 0 m | ZREM {unsealed} m | ZSCORE {unsealed} m | ZCARD {unsealed}
    EVALSHA s 1 {jobs} | ZADD {jobs} 0 m | ZREM {jobs} m | ZCARD {jobs}
    EVALSHA s 1 {owned} | ZADD {owned} 0 m | ZREM {owned} m | ZCARD {owned}
    TYPE {job} | TYPE {jobs} | TYPE {owned} | TYPE {leases} | TYPE {dispatch} | TYPE {backlog} | TYPE {tickets}
    EVALSHA s 1 {backlog} | ZADD {backlog} 0 m | ZREM {backlog} m | ZRANGEBYLEX {backlog} - + | ZCARD {backlog}
    EVALSHA s 1 {tickets} | HGET {tickets} f | HLEN {tickets} | HKEYS {tickets} | HSET {tickets} f v | HDEL {tickets} f
    DEL {tickets}
    EVALSHA s 1 {dispatch} | EXISTS {dispatch} | XADD {dispatch} * f v | XRANGE {dispatch} - + | XDEL {dispatch} 0-1
    XLEN {dispatch}
    XGROUP CREATE {dispatch} g 0 | XGROUP DELCONSUMER {dispatch} g c | XINFO GROUPS {dispatch}
    XINFO CONSUMERS {dispatch} g | XREADGROUP GROUP g c STREAMS {dispatch} > | XCLAIM {dispatch} g c 0 0-1
    XACK {dispatch} g 0-1
    EVALSHA s 1 {leases} | ZADD {leases} 0 m | ZREM {leases} m | ZSCORE {leases} m | ZRANGEBYSCORE {leases} 0 1
    ZCARD {leases} | ZCOUNT {leases} 0 1
    EVALSHA s 1 {claims} | HGET {claims} f | HSET {claims} f v | HDEL {claims} f | PEXPIRE {claims} 1
    EVALSHA s 1 {offers} | ZADD {offers} 0 m | ZREM {offers} m | ZSCORE {offers} m | ZRANGEBYSCORE {offers} 0 1
    ZPOPMAX {offers} | EXISTS {offers} | DEL {offers}
    EVALSHA s 1 {offered} | HGET {offered} f | HGETALL {offered} | HSET {offered} f v | HDEL {offered} f
    PEXPIRE {offered} 1
    EVALSHA s 1 {sharing} | ZADD {sharing} 0 m | ZREM {sharing} m | ZRANGEBYSCORE {sharing} 0 1 | ZCARD {sharing}
    PEXPIRE {sharing} 1 | EXISTS {backlog} | EXISTS {leases}
    EVALSHA s 1 {ends} | GET {ends} | SET {ends} v
    EVALSHA s 1 {clock} | HGETALL {clock} | HSET {clock} f v | HDEL {clock} f | HGET {clock} f
    SADD {queues} m | SMEMBERS {queues}
    EVALSHA s 1 {gone} | HEXISTS {gone} f | HGET {gone} f | HSET {gone} f v | HDEL {gone} f | HLEN {gone}
    UNLINK {job} | UNLINK {calls} | UNLINK {ring}
    EVALSHA s 1 {facts} | XADD {facts} * f v | XDEL {facts} 0-1 | XTRIM {facts} MAXLEN 1
    PUBLISH {facts} m | SUBSCRIBE {facts}
    PUBLISH {events} m | PUBLISH {wake} m | PUBLISH {controller} m | SUBSCRIBE {wake} | SUBSCRIBE {controller}
    PUBSUB NUMSUB {controller}
"""
#: What users, API keys and sessions need; a controller, which has none of these rights, does without.
ACCOUNTS = """
    EVALSHA s 1 {user} | HGETALL {user} | HGET {user} f | EXISTS {user} | HSET {user} f v
    EVALSHA s 1 {api-key} | HGETALL {api-key} | HGET {api-key} f | EXISTS {api-key} | HSET {api-key} f v
    EVALSHA s 1 {users} | SMEMBERS {users} | SADD {users} m
    EVALSHA s 1 {api-keys} | SMEMBERS {api-keys} | SADD {api-keys} m
    EVALSHA s 1 {user-keys} | SMEMBERS {user-keys} | SADD {user-keys} m
    EVALSHA s 1 {emails} | HGET {emails} f | HEXISTS {emails} f | HSET {emails} f v
    EVALSHA s 1 {hashes} | HGET {hashes} f | HEXISTS {hashes} f | HSET {hashes} f v
    EVALSHA s 1 {webhooks} | HGET {webhooks} f | HGETALL {webhooks} | HLEN {webhooks} | EXISTS {webhooks}
    HSET {webhooks} f v | HDEL {webhooks} f
    EVALSHA s 1 {webhook-sender} | HGET {webhook-sender} f | HMGET {webhook-sender} f | HSET {webhook-sender} f v
    HDEL {webhook-sender} f
    EVALSHA s 1 {webhook-queue} | HLEN {webhook-queue} | HSCAN {webhook-queue} 0 | HSET {webhook-queue} f v
    HDEL {webhook-queue} f | DEL {webhook-queue}
    GET {session} | SET {session} v | DEL {session} | PTTL {session} | SET {probe} v
"""


def names_of(keys: Keys, partition: int) -> dict[str, str]:
    """Return the keys and channels of each kind, in one partition; their ids are `*`."""
    tag = keys.tag(partition)
    job, queue = JobKeys("*", tag), QueueKeys("*", tag)
    return {
        "store": keys.store,
        "job": job.hash,
        "events": job.stream,
        "calls": job.calls,
        "index": job.log_index,
        "ring": job.ring,
        "segment": segment_key(job, "*"),
        "sealer": sweeper_key(tag, "sealer"),
        "archiver": sweeper_key(tag, "archiver"),
        "unsealable": unsealable_key(tag),
        "ids": job.ids,
        "ended": job.ended,
        "unsealed": job.unsealed,
        "gone": gone_key(tag),
        "facts": facts_key(tag),
        "jobs": jobs_key(tag, JobStatus.RUNNING),
        "owned": jobs_key(tag, JobStatus.RUNNING, "*"),
        "backlog": queue.backlog,
        "tickets": queue.tickets,
        "dispatch": queue.dispatch,
        "leases": queue.leases,
        "claims": queue.calls,
        "offers": queue.offers,
        "offered": queue.offered,
        "sharing": queue.sharing,
        "ends": queue.last_call("*"),
        "clock": queue.clock,
        "queues": queues_key(tag),
        "wake": queue.channel,
        "controller": f"{queue.controllers_channel}*",
        "user": keys.user("*"),
        "api-key": keys.api_key("*"),
        "users": keys.users,
        "api-keys": keys.api_keys,
        "user-keys": keys.user_api_keys("*"),
        "emails": keys.emails,
        "hashes": keys.api_key_hashes,
        "session": account_key(keys, "session", "*"),
        "webhooks": account_key(keys, "webhooks"),
        "webhook-sender": account_key(keys, "webhook-sender"),
        "webhook-queue": account_key(keys, "webhook-queue", "*"),
        "probe": account_key(keys, "probe"),
    }


def commands_of(text: str, names: Mapping[str, str], *, is_cluster: bool = False) -> list[Command]:
    """Return the commands that a text has, with the names of keys and channels; in a cluster channels are sharded."""
    words = {f"{{{name}}}": key for name, key in names.items()} | (SHARDED if is_cluster else {})
    lines = [part.split() for line in text.splitlines() for part in line.split("|")]
    return [tuple(words.get(word, word) for word in line) for line in lines if line]


def describe(commands: Iterable[Command], refused: Collection[Command]) -> list[str]:
    """Return what an ACL lacks for the refused ones of some commands, as it would be written there. Pure."""
    by_name, by_target = defaultdict[str, set[Command]](set), defaultdict[str, set[Command]](set)
    for command in commands:
        by_name[_name(command)].add(command)
        by_target[_target(command)].add(command)
    targets = {
        target
        for target, its in by_target.items()
        # A refused command doesn't show whether its key is the reason.
        if target and its <= set(refused) and len(set(map(_name, its))) > 1
    }
    names = set[str]()
    for name, its in by_name.items():
        left = {command for command in its if _target(command) not in targets}
        if left and left <= set(refused):
            names.add(name)
    rest = [command for command in refused if _name(command) not in names and _target(command) not in targets]
    found = [f"+{name}" for name in sorted(names)]
    found += sorted(targets)
    return found + sorted({f"+{_name(command)} on {_target(command)}" for command in rest})


def _name(command: Command) -> str:
    """Return a command's name as ACLs have it."""
    has_subcommand = command[0] in ("XGROUP", "XINFO", "PUBSUB", "CLUSTER")
    return "|".join(command[: 2 if has_subcommand else 1]).lower()


def _target(command: Command) -> str:
    """Return the key or channel of a command as ACLs have it, "" if there is none."""
    found = next((word for word in command[1:] if ":" in word), "")
    if not found or command[0] == "PUBSUB":
        return ""
    is_channel = command[0] in (*SHARDED, *SHARDED.values())
    return f"{'&' if is_channel else '~'}{found}"


async def answering(nodes: Nodes) -> Sequence[Node]:
    """Return the servers that can be asked: one of several may be away, with its partitions, and the others serve."""
    servers = await servers_of(nodes)
    if not nodes.is_divided:
        return servers
    there = await asyncio.gather(*(node.is_there() for node in servers))
    return [node for node, is_there in zip(servers, there, strict=True) if is_there]


async def check_rights_to_write(nodes: Nodes, keys: Keys) -> None:
    """Raise MissingRightsError with all rights that a writing user lacks; one round trip."""
    partitions = sorted({0, keys.partitions - 1})
    commands, accounts = list[Command](), list[Command]()
    for partition in partitions:
        names = names_of(keys, partition)
        commands += commands_of(READING + LISTENING + WRITING, names, is_cluster=nodes.is_divided)
        accounts = commands_of(ACCOUNTS, names)
    if nodes.replicas:
        commands.append(("WAIT", "1", "0"))
        commands += [("SET", replicated_key(keys.tag(partition)), "1") for partition in partitions]
    if nodes.is_divided:
        tags = {*map(keys.tag, partitions), tag_in(keys.store) or ""}
        commands += [("CLUSTER", "SLOTS"), ("ASKING",), *(("EVALSHA", "s", "1", never_key(tag)) for tag in tags)]
    asked = [*commands, *accounts]
    call = RIGHTS.order(RightsCall(["\n".join(command) for command in asked]))
    try:
        there = await answering(nodes)
        refused = {asked[number - 1] for node in there for number in await node.run(RIGHTS, *call)}
    except StoreError as error:
        _complain_of_scripts(nodes, error)
        raise
    if refused.issuperset(accounts):
        asked, refused = commands, refused.difference(accounts)
    _complain(nodes, asked, refused)


def _complain_of_scripts(nodes: Nodes, error: StoreError) -> None:
    """Raise UnsuitableServerError if an error is a reply to the first script that only what runs none would give."""
    reply, cause = None, error.__cause__
    if type(error) in (StoreError, OutcomeUnknownError) and isinstance(cause, Exception):
        reply = reply_of(cause)
    if reply is not None:
        raise UnsuitableServerError(
            f"{nodes.deployment.name} runs no scripts, which the store needs: reach the server itself, not through a "
            f"proxy that hides EVALSHA or EVAL ({reply})"
        ) from error


async def check_rights_to_read(nodes: Nodes, keys: Keys) -> None:
    """Raise MissingRightsError with all rights that a reading user lacks; nothing is written."""
    commands, listening = list[Command](), list[Command]()
    for partition in sorted({0, keys.partitions - 1}):
        names = names_of(keys, partition)
        commands += commands_of(READING, names, is_cluster=nodes.is_divided)
        listening += commands_of(LISTENING, names, is_cluster=nodes.is_divided)
    asked, refused = [*commands, *listening], set[Command]()
    for node in await answering(nodes):
        replies = await try_each(node.link, commands)
        replies += await try_listening(node.link, listening)
        refused.update(command for command, reply in zip(asked, replies, strict=True) if _is_refusal(reply))
    _complain(nodes, asked, refused)


def _is_refusal(reply: object) -> bool:
    return isinstance(reply, Exception) and outcome_of(reply, Kind.READ).cause is Cause.RIGHTS


def _complain(nodes: Nodes, asked: Sequence[Command], refused: Collection[Command]) -> None:
    if refused:
        missing = describe(asked, refused)
        raise MissingRightsError(
            f"{nodes.deployment.name}: the user lacks {len(missing)} rights: {' '.join(missing)} "
            "(docs/operations.md has all that are needed)"
        )
