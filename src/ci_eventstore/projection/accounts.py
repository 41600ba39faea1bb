"""Verify and rebuild the indexes of users and API keys; the records themselves are the source."""

from collections.abc import Mapping
from dataclasses import dataclass

from ci_common.validation import fold_email
from ci_eventstore.keys import Keys
from ci_eventstore.projection.differences import Difference, compare
from ci_eventstore.server.client import Server
from ci_eventstore.server.replies import as_text_map, as_texts

#: What an index that is a set holds for each of its members.
MEMBER = "member"


@dataclass(frozen=True, slots=True)
class _Index:
    key: str
    is_set: bool
    expected: Mapping[str, str]


class AccountIndexes:
    """The indexes of one store's accounts."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    async def verify(self) -> list[Difference]:
        """Return where indexes differ from the records, in two looks: what only one shows was being written."""
        first = await self._look()
        second = set(await self._look()) if first else set()
        return [difference for difference in first if difference in second]

    async def rebuild(self) -> None:
        """Make the indexes as the records say."""
        for index in await self._indexes():
            found = await self._found(index)
            for name in found.keys() - index.expected.keys():
                await self._server.read("SREM" if index.is_set else "HDEL", index.key, name)
            for name, value in index.expected.items():
                if found.get(name) != value:
                    await self._put(index, name, value)

    async def _put(self, index: _Index, name: str, value: str) -> None:
        if index.is_set:
            await self._server.read("SADD", index.key, name)
        else:
            await self._server.read("HSET", index.key, name, value)

    async def _look(self) -> list[Difference]:
        looks = [
            compare("accounts", f"index {index.key}", index.expected, await self._found(index))
            for index in await self._indexes()
        ]
        return [difference for look in looks for difference in look]

    async def _found(self, index: _Index) -> dict[str, str]:
        if index.is_set:
            return dict.fromkeys(as_texts(await self._server.read("SMEMBERS", index.key)), MEMBER)
        return as_text_map(await self._server.read("HGETALL", index.key))

    async def _indexes(self) -> list[_Index]:
        users = await self._records(self._keys.user("*"))
        api_keys = await self._records(self._keys.api_key("*"))
        owned: dict[str, dict[str, str]] = {user["id"]: {} for user in users}
        for api_key in api_keys:
            owned.setdefault(api_key["user_id"], {})[api_key["id"]] = MEMBER
        return [
            _Index(self._keys.users, True, {user["id"]: MEMBER for user in users}),
            _Index(self._keys.emails, False, {fold_email(user["email"]): user["id"] for user in users}),
            _Index(self._keys.api_keys, True, {api_key["id"]: MEMBER for api_key in api_keys}),
            _Index(self._keys.api_key_hashes, False, {api_key["key_hash"]: api_key["id"] for api_key in api_keys}),
            *(_Index(self._keys.user_api_keys(user_id), True, ids) for user_id, ids in sorted(owned.items())),
        ]

    async def _records(self, pattern: str) -> list[dict[str, str]]:
        found = [key async for key in self._server.scan(pattern)]
        replies = await self._server.read_many([("HGETALL", key) for key in sorted(set(found))])
        return [fields for fields in map(as_text_map, replies) if fields]
