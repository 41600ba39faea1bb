"""Keep users and API keys: the account half of `RedisJobRepository`."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

from ci_common.errors import (
    APIKeyAlreadyExistsError,
    APIKeyNotFoundError,
    EmailAlreadyExistsError,
    UserAlreadyExistsError,
    UserNotFoundError,
)
from ci_common.models import APIKey, User, as_utc
from ci_common.validation import fold_email
from ci_eventstore.accounts.records import (
    api_key_from_hash,
    api_key_to_hash,
    encode_flag,
    user_from_hash,
    user_to_hash,
)
from ci_eventstore.keys import Keys
from ci_eventstore.server.client import Server
from ci_eventstore.server.replies import as_text_map, as_texts
from ci_eventstore.server.scripts import load_script

CREATE_RECORD = load_script(__package__, "create_record")
UPDATE_RECORD = load_script(__package__, "update_record")


class AccountStore:
    """The records of users and API keys on one server; arguments were checked."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    async def create_user(self, user: User) -> None:
        """Store a new user; UserAlreadyExistsError, EmailAlreadyExistsError."""
        keys = [self._keys.user(user.id), self._keys.users, self._keys.emails]
        match await create_record(
            self._server, keys=keys, record_id=user.id, unique=fold_email(user.email), fields=user_to_hash(user)
        ):
            case b"exists":
                raise UserAlreadyExistsError(user.id)
            case b"taken":
                raise EmailAlreadyExistsError(user.email)

    async def get_user(self, user_id: str) -> User | None:
        """Return the user of that id."""
        fields = as_text_map(await self._server.read("HGETALL", self._keys.user(user_id)))
        return user_from_hash(fields) if fields else None

    async def get_user_by_email(self, email: str) -> User | None:
        """Return the user with that email."""
        user_id = await self._server.read("HGET", self._keys.emails, fold_email(email))
        return None if user_id is None else await self.get_user(user_id.decode())

    async def list_users(self) -> list[User]:
        """Return all users, the oldest first."""
        ids = as_texts(await self._server.read("SMEMBERS", self._keys.users))
        users = [user_from_hash(fields) for fields in await self._records([self._keys.user(id_) for id_ in ids])]
        return sorted(users, key=lambda user: (as_utc(user.created_at), user.id))

    async def update_user_active(self, user_id: str, is_active: bool) -> None:
        """Let a user authenticate, or not; UserNotFoundError."""
        key = self._keys.user(user_id)
        if not await update_record(self._server, key=key, field="is_active", value=encode_flag(is_active)):
            raise UserNotFoundError(user_id)

    async def create_api_key(self, api_key: APIKey) -> None:
        """Store a new key; UserNotFoundError, APIKeyAlreadyExistsError."""
        keys = [self._keys.api_key(api_key.id), self._keys.api_keys, self._keys.api_key_hashes]
        keys += [self._keys.user(api_key.user_id), self._keys.user_api_keys(api_key.user_id)]
        match await create_record(
            self._server, keys=keys, record_id=api_key.id, unique=api_key.key_hash, fields=api_key_to_hash(api_key)
        ):
            case b"exists" | b"taken":
                raise APIKeyAlreadyExistsError(api_key.id)
            case b"ownerless":
                raise UserNotFoundError(api_key.user_id)

    async def get_api_key_by_hash(self, key_hash: str) -> APIKey | None:
        """Return the key with that hash."""
        key_id = await self._server.read("HGET", self._keys.api_key_hashes, key_hash)
        if key_id is None:
            return None
        fields = as_text_map(await self._server.read("HGETALL", self._keys.api_key(key_id.decode())))
        return api_key_from_hash(fields) if fields else None

    async def list_api_keys(self, user_id: str | None) -> list[APIKey]:
        """Return all keys, or a user's, the oldest first."""
        key = self._keys.api_keys if user_id is None else self._keys.user_api_keys(user_id)
        ids = as_texts(await self._server.read("SMEMBERS", key))
        found = [api_key_from_hash(fields) for fields in await self._records([self._keys.api_key(id_) for id_ in ids])]
        return sorted(found, key=lambda api_key: (as_utc(api_key.created_at), api_key.id))

    async def revoke_api_key(self, key_id: str) -> None:
        """Make the key inactive; APIKeyNotFoundError."""
        await self._update_api_key(key_id, "is_active", encode_flag(False))

    async def update_api_key_last_used(self, key_id: str, timestamp: datetime) -> None:
        """Note when the key was used; APIKeyNotFoundError."""
        await self._update_api_key(key_id, "last_used_at", timestamp.isoformat())

    async def _update_api_key(self, key_id: str, field: str, value: str) -> None:
        if not await update_record(self._server, key=self._keys.api_key(key_id), field=field, value=value):
            raise APIKeyNotFoundError(key_id)

    async def _records(self, keys: Sequence[str]) -> list[dict[str, str]]:
        replies = await self._server.read_many([("HGETALL", key) for key in keys])
        return [fields for fields in map(as_text_map, replies) if fields]


async def create_record(
    server: Server, *, keys: Sequence[str], record_id: str, unique: str, fields: Mapping[str, str]
) -> bytes:
    """Store a record as `create_record.lua` says, and return its answer."""
    pairs = [text for pair in fields.items() for text in pair]
    reply: bytes = await server.run(CREATE_RECORD, keys, [secrets.token_hex(8), record_id, unique, *pairs])
    return reply


async def update_record(server: Server, *, key: str, field: str, value: str) -> bool:
    """Set one field of a record; False if there is none."""
    return bool(await server.run(UPDATE_RECORD, [key], [field, value]))
