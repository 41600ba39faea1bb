"""Take a user's account away: first from the user, then from the store, with keys, sessions and index entries."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ci_common.validation import fold_email
from ci_eventstore.accounts.store import UPDATE_RECORD, UpdateCall
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_optional_texts, as_text, as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.keys import Keys, account_key


class KeyRecord(NamedTuple):
    """An API key of the user."""

    record: Key
    id: str
    hash: str


class DeleteAccountCall(NamedTuple):
    """What `delete_account.lua` is called with."""

    record: Key
    users: Key
    emails: Key
    api_keys: Key
    hashes: Key
    #: The set of the user's API keys.
    owned: Key
    id: str
    #: As the record has it, "" if there is no record; and as the index has it.
    email: str
    folded: str
    keys: Sequence[KeyRecord]


DELETE_ACCOUNT = load_script(__package__, "delete_account", call=DeleteAccountCall)


async def begin_erasure(nodes: Nodes, keys: Keys, user_id: str) -> None:
    """Note in the record of a user, who is inactive, that it is to be erased.

    From then on the user can't be activated, or get another key. The record is the last thing to go.
    """
    call = UpdateCall(keys.user(user_id), "erasing", "1")
    await nodes.run(UPDATE_RECORD, *UPDATE_RECORD.order(call))


async def delete_account(nodes: Nodes, keys: Keys, user_id: str) -> int:
    """Delete a user's record, API keys and places in indexes; return how many keys it were."""
    record = keys.user(user_id)
    while True:
        owned = await key_records(nodes, keys, user_id)
        [email] = as_optional_texts(await nodes.read("HMGET", record, "email"))
        call = DeleteAccountCall(
            *(record, keys.users, keys.emails, keys.api_keys, keys.api_key_hashes, keys.user_api_keys(user_id)),
            id=user_id,
            email=email or "",
            folded=fold_email(email or ""),
            keys=owned,
        )
        if await nodes.run(DELETE_ACCOUNT, *DELETE_ACCOUNT.order(call)) == b"deleted":
            return len(owned)


async def key_records(nodes: Nodes, keys: Keys, user_id: str) -> list[KeyRecord]:
    """Return the API keys of a user, those whose records can't be read, too."""
    ids = as_texts(await nodes.read("SMEMBERS", keys.user_api_keys(user_id)))
    replies = await nodes.read_many([("HMGET", keys.api_key(key_id), "key_hash") for key_id in ids])
    hashes = [None if reply is WRONG_TYPE else as_optional_texts(reply)[0] for reply in replies]
    return [KeyRecord(keys.api_key(key_id), key_id, text or "") for key_id, text in zip(ids, hashes, strict=True)]


async def end_sessions(nodes: Nodes, keys: Keys, key_hashes: Collection[str]) -> int:
    """End all browsers' sessions that stand for some API keys; it walks all keys of the accounts' server."""
    ended, sessions = 0, account_key(keys, "session", "*")
    async for page in nodes.node_of(sessions).scan_pages("SCAN", "MATCH", sessions):
        found = await nodes.read_many([("GET", key) for key in page]) if page else []
        mine = [
            key
            for key, reply in zip(page, found, strict=True)
            if reply is not None and reply is not WRONG_TYPE and as_text(reply) in key_hashes
        ]
        ended += int(await nodes.read("DEL", *mine)) if mine else 0
    return ended
