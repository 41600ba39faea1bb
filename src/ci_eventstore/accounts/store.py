"""Users, API keys and browsers' sessions, as records on one server: the account half of `RedisJobRepository`."""

import logging
import secrets
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from ci_common.errors import (
    APIKeyAlreadyExistsError,
    APIKeyNotFoundError,
    EmailAlreadyExistsError,
    InvalidIdError,
    UserAlreadyExistsError,
    UserNotFoundError,
)
from ci_common.models import APIKey, User, as_utc, hash_api_key
from ci_common.repository import APIKeyRepository, UserRepository
from ci_common.validation import (
    as_text,
    check_api_key,
    check_flag,
    check_id,
    check_time,
    check_user,
    fold_email,
    optional_id,
)
from ci_eventstore.accounts.records import (
    api_key_from_hash,
    api_key_to_hash,
    encode_flag,
    user_from_hash,
    user_to_hash,
)
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_bytes, as_texts
from ci_eventstore.connection.replies import as_text as to_text
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.caller import new_token
from ci_eventstore.keys import Keys, account_key

#: How long a browser stays logged in.
SESSION_SECONDS = 7 * 24 * 3600


class SessionStore:
    """Sessions as keys that expire. Only the hash of a session's token is stored, and only the hash of its key."""

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self._nodes = nodes
        self._keys = keys

    async def create(self, key_hash: str) -> str:
        """Begin a session for an API key, given by its hash, and return its token."""
        token = secrets.token_urlsafe(32)
        await self._nodes.read("SET", self._key(token), key_hash, "EX", SESSION_SECONDS)
        return token

    async def find(self, token: str) -> str | None:
        """Return the hash of the API key that a session stands for; whether the key is still good is another matter."""
        found = await self._nodes.read("GET", self._key(token))
        return None if found is None else str(found.decode())

    async def seconds_left(self, token: str) -> float | None:
        """Return how long a session lasts from now on; None if there is none."""
        left = int(await self._nodes.read("PTTL", self._key(token)))
        return None if left < 0 else left / 1000

    async def end(self, token: str) -> None:
        """End a session; one that isn't there has ended."""
        await self._nodes.read("DEL", self._key(token))

    def _key(self, token: str) -> str:
        return account_key(self._keys, "session", hash_api_key(token))


logger = logging.getLogger("ci_eventstore.accounts")

_Record = TypeVar("_Record", User, APIKey)


class Owner(NamedTuple):
    """Whose a record is: the owner's own record, and the set of the owner's ids."""

    record: Key
    ids: Key


class CreateCall(NamedTuple):
    """What `create_record.lua` is called with."""

    record: Key
    #: The set of all ids.
    ids: Key
    #: The hash of what must be unique.
    unique: Key
    call: str
    id: str
    #: That must be unique.
    value: str
    #: One, where records have owners.
    owners: Sequence[Owner]
    #: Names and values, by turns.
    fields: Sequence[str]


class UpdateCall(NamedTuple):
    """What `update_record.lua` is called with."""

    record: Key
    field: str
    value: str


CREATE_RECORD = load_script(__package__, "create_record", call=CreateCall)
UPDATE_RECORD = load_script(__package__, "update_record", call=UpdateCall)


class AccountStore(UserRepository, APIKeyRepository):
    """The part of the contract that is about users and API keys."""

    _keys: Keys

    @property
    @abstractmethod
    def _nodes(self) -> Nodes:
        """Where the records are; NotInitializedError."""

    async def create_user(self, user: User) -> None:
        """Store a new user; UserAlreadyExistsError, EmailAlreadyExistsError."""
        check_user(user)
        places = (self._keys.user(user.id), self._keys.users, self._keys.emails)
        match await self._create(places, (), user.id, fold_email(user.email), user_to_hash(user)):
            case b"exists":
                raise UserAlreadyExistsError(user.id)
            case b"taken":
                raise EmailAlreadyExistsError(user.email)

    async def get_user(self, user_id: str) -> User | None:
        """Return the user of that id."""
        reply = await self._nodes.read("HGETALL", as_bytes(self._keys.user(check_id("user id", user_id))))
        return user_from_hash(user_id, reply) if reply else None

    async def get_user_by_email(self, email: str) -> User | None:
        """Return the user with that email, whatever its case."""
        if not is_id(as_text("email", email)):
            return None
        user_id = await self._nodes.read("HGET", self._keys.emails, fold_email(email))
        return None if user_id is None else await self.get_user(to_text(user_id))

    async def list_users(self) -> list[User]:
        """Return all users, the oldest first."""
        ids = as_texts(await self._nodes.read("SMEMBERS", self._keys.users))
        users = await self._read_all(ids, self._keys.user, user_from_hash)
        return sorted(users, key=lambda user: (as_utc(user.created_at), user.id))

    async def update_user_active(self, user_id: str, is_active: bool) -> None:
        """Let a user authenticate, or not; UserNotFoundError."""
        key, value = self._keys.user(check_id("user id", user_id)), encode_flag(check_flag("is_active", is_active))
        if not await self._update(key, "is_active", value):
            raise UserNotFoundError(user_id)

    async def create_api_key(self, api_key: APIKey) -> None:
        """Store a new key; UserNotFoundError, APIKeyAlreadyExistsError."""
        check_api_key(api_key)
        places = (self._keys.api_key(api_key.id), self._keys.api_keys, self._keys.api_key_hashes)
        owner = Owner(self._keys.user(api_key.user_id), self._keys.user_api_keys(api_key.user_id))
        match await self._create(places, (owner,), api_key.id, api_key.key_hash, api_key_to_hash(api_key)):
            case b"exists" | b"taken":
                raise APIKeyAlreadyExistsError(api_key.id)
            case b"ownerless":
                raise UserNotFoundError(api_key.user_id)

    async def get_api_key_by_hash(self, key_hash: str) -> APIKey | None:
        """Return the key with that hash, a revoked one too."""
        if not is_id(as_text("API key hash", key_hash)):
            return None
        key_id = await self._nodes.read("HGET", self._keys.api_key_hashes, key_hash)
        if key_id is None:
            return None
        key_id = to_text(key_id)
        reply = await self._nodes.read("HGETALL", as_bytes(self._keys.api_key(key_id)))
        return api_key_from_hash(key_id, reply) if reply else None

    async def list_api_keys(self, user_id: str | None = None) -> list[APIKey]:
        """Return all keys, or a user's, the oldest first."""
        owner = optional_id("user id", user_id)
        key = self._keys.api_keys if owner is None else self._keys.user_api_keys(owner)
        ids = as_texts(await self._nodes.read("SMEMBERS", key))
        found = await self._read_all(ids, self._keys.api_key, api_key_from_hash)
        return sorted(found, key=lambda api_key: (as_utc(api_key.created_at), api_key.id))

    async def revoke_api_key(self, key_id: str) -> None:
        """Make the key inactive, for good; APIKeyNotFoundError."""
        await self._update_api_key(key_id, "is_active", encode_flag(False))

    async def update_api_key_last_used(self, key_id: str, timestamp: datetime) -> None:
        """Note when a key was used; APIKeyNotFoundError."""
        check_time("timestamp", timestamp)
        await self._update_api_key(key_id, "last_used_at", timestamp.isoformat())

    async def _update_api_key(self, key_id: str, field: str, value: str) -> None:
        key = self._keys.api_key(check_id("API key id", key_id))
        if not await self._update(key, field, value):
            raise APIKeyNotFoundError(key_id)

    async def _create(
        self,
        places: tuple[str, str, str],
        owners: Sequence[Owner],
        record_id: str,
        unique: str,
        fields: Mapping[str, str],
    ) -> bytes:
        """Store a record as `create_record.lua` says, and return its answer."""
        pairs = [text for pair in fields.items() for text in pair]
        call = CreateCall(*places, new_token(), record_id, unique, owners, pairs)
        reply: bytes = await self._nodes.run(CREATE_RECORD, *CREATE_RECORD.order(call))
        return reply

    async def _update(self, key: str, field: str, value: str) -> bool:
        """Set one field of a record; False if there is none."""
        return bool(await self._nodes.run(UPDATE_RECORD, *UPDATE_RECORD.order(UpdateCall(key, field, value))))

    async def _read_all(
        self, ids: Sequence[str], key_of: Callable[[str], str], read: Callable[[str, Sequence[bytes]], _Record]
    ) -> list[_Record]:
        """Return the records of these ids that can be read; the log names the others."""
        found = []
        replies = await self._nodes.read_many([("HGETALL", as_bytes(key_of(record_id))) for record_id in ids])
        for record_id, reply in zip(ids, replies, strict=True):
            try:
                if reply is WRONG_TYPE:
                    raise StoreFormatError(f"the record of {record_id!r} is no hash")
                if reply:
                    found.append(read(record_id, reply))
            except StoreFormatError as error:
                logger.warning("left out of a list: %s", error)
        return found


def is_id(value: str) -> bool:
    """Tell whether a text could be an id, an email or a hash: what couldn't is looked up in vain."""
    try:
        check_id("id", value)
    except InvalidIdError:
        return False
    return True
