"""Verify and rebuild the indexes of users and API keys; the records themselves are the source.

Which entries a record has, and whether one belongs where it stands, is decided by pure functions of the record.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ci_common.validation import fold_email
from ci_eventstore.accounts.records import api_key_from_hash, user_from_hash
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_bytes, as_text, as_text_map, as_texts, is_unicode
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.keys import Keys
from ci_eventstore.projection.differences import Difference

#: What an index that is a set holds for each of its members.
MEMBER = "member"


class Index(NamedTuple):
    """One index."""

    key: str
    kind: Literal["set", "hash"]
    #: The kind of the records that it is about.
    records: Literal["user", "key"]
    #: The field of a record that an entry is made from; "" where there only has to be a record.
    field: str = ""
    #: Of a set that belongs to a user: the user's id.
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that an index has or should have, and the record that it names."""

    index: Index
    #: A set's member, or a hash's field.
    name: str
    record_id: str
    record_key: str

    @property
    def value(self) -> str:
        """What the index holds under the name when it has the entry."""
        return MEMBER if self.index.kind == "set" else self.record_id

    def belongs(self, fields: Mapping[str, str] | None) -> bool | None:
        """Return whether the record calls for the entry; None: the field that decides is damaged."""
        if fields is None:
            return None
        if not fields or not self.index.field:
            return bool(fields)
        text = fields.get(self.index.field)
        if text is None:
            return None
        return self.name == _folded(self.index, text) if self.index.kind == "hash" else self.index.owner == text


class AccountIndexes:
    """The indexes of a store's accounts, and their entries."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.users = Index(keys.users, "set", "user")
        self.emails = Index(keys.emails, "hash", "user", "email")
        self.api_keys = Index(keys.api_keys, "set", "key")
        self.hashes = Index(keys.api_key_hashes, "hash", "key", "key_hash")

    @property
    def fixed(self) -> list[Index]:
        """The indexes of all users and keys."""
        return [self.users, self.emails, self.api_keys, self.hashes]

    def owned(self, user_id: str) -> Index:
        """Return the index of a user's API keys."""
        return Index(self._keys.user_api_keys(user_id), "set", "key", "user_id", user_id)

    def entry(self, index: Index, name: str, record_id: str) -> Entry:
        """Return the entry of an index that names a record."""
        key = self._keys.user(record_id) if index.records == "user" else self._keys.api_key(record_id)
        return Entry(index, name, record_id, key)

    def entries_of(self, kind: Literal["user", "key"], record_id: str, fields: Mapping[str, str]) -> Iterator[Entry]:
        """Yield the entries that a record calls for, as far as it can be read."""
        everything, unique = (self.users, self.emails) if kind == "user" else (self.api_keys, self.hashes)
        yield self.entry(everything, record_id, record_id)
        if unique.field in fields:
            yield self.entry(unique, _folded(unique, fields[unique.field]), record_id)
        if kind == "key" and "user_id" in fields:
            yield self.entry(self.owned(fields["user_id"]), record_id, record_id)


def _folded(index: Index, text: str) -> str:
    return fold_email(text) if index.field == "email" else text


class MendCall(NamedTuple):
    """What `mend_index.lua` is called with: records are as they were read."""

    #: A set, or a hash from what is unique to ids.
    entries: Key
    #: That the entry is about; of a hash, the one that the entry names instead, or the same.
    record: Key
    holder_record: Key
    #: "set" or "hash".
    kind: str
    #: Of the entry; the record's id; the record's field that the entry is made from, "" if it only needs a record.
    name: bytes
    id: bytes
    field: str
    #: That field.
    seen: bytes
    #: 1 if the entry belongs there.
    has_place: int
    #: The id that the entry names instead, or "", and that record's field.
    holder_id: bytes
    holder_seen: bytes


MEND_INDEX = load_script(__package__, "mend_index", call=MendCall)
PAGE_RECORDS = 500
#: How often one entry is looked at again because its record was changing.
LOOKS = 10


class _Look(NamedTuple):
    """An entry, its record and what the index has under its name, all at one moment."""

    entry: Entry
    #: None: the record is no hash.
    fields: dict[str, str] | None
    found: str | None

    @property
    def is_wrong(self) -> bool:
        """Whether the entry is missing, or there though it doesn't belong there."""
        belongs = self.entry.belongs(self.fields)
        return belongs is not None and belongs != (self.found == self.entry.value)

    def difference(self) -> Difference:
        """Return what is wrong."""
        expected = self.entry.value if self.entry.belongs(self.fields) else None
        return Difference("accounts", f"index {self.entry.index.key} {self.entry.name}", expected, self.found)


class AccountProjections:
    """The indexes of one store's accounts, compared with the records page by page.

    An entry that looks wrong is read again in one step with its record, so a write in between is no difference.
    """

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self._nodes = nodes
        self._keys = keys
        self._indexes = AccountIndexes(keys)

    async def verify_records(self, page: Sequence[str], *, mends: bool) -> AsyncIterator[Difference]:
        """Yield where the records among some keys can't be read, lack an entry, or have an unfounded one.

        If `mends`, a script looks at each entry and its record again and changes what is still wrong.
        """
        kinds: tuple[Literal["user", "key"], ...] = ("user", "key")
        for kind in kinds:
            if ids := _ids_in(page, self._keys.user("") if kind == "user" else self._keys.api_key("")):
                for unreadable in await self._unreadable(kind, ids):
                    yield unreadable
                async for difference in self._judge_all(await self._missing(kind, ids), mends=mends):
                    yield difference
        if owners := _ids_in(page, self._keys.user_api_keys("")):
            async for entries in self._owned_entries(owners):
                async for difference in self._judge_all(await self._unfounded(entries), mends=mends):
                    yield difference

    async def verify_indexes(self, *, mends: bool) -> AsyncIterator[Difference]:
        """Yield the entries of the indexes of all users and keys that no record calls for; remove them if `mends`."""
        for index in self._indexes.fixed:
            async for entries in self._entries(index):
                async for difference in self._judge_all(await self._unfounded(entries), mends=mends):
                    yield difference

    async def named_records(self) -> AsyncIterator[list[str]]:
        """Yield the keys of the records that the indexes name, page by page."""
        for index in (self._indexes.users, self._indexes.api_keys):
            async for entries in self._entries(index):
                keys = [entry.record_key for entry in entries]
                if index.records == "user":
                    keys += [self._keys.user_api_keys(entry.name) for entry in entries]
                yield [*filter(is_unicode, keys)]

    async def _judge_all(self, suspects: Sequence[Entry], *, mends: bool) -> AsyncIterator[Difference]:
        for entry in suspects:
            if difference := await self._judge(entry, mends=mends):
                yield difference

    async def _unreadable(self, kind: Literal["user", "key"], ids: Sequence[str]) -> list[Difference]:
        """Return which records can't be read. They are the only source, so nothing mends them."""
        found = []
        for record_id, reply in zip(ids, await self._read_records(kind, ids), strict=True):
            try:
                if reply is WRONG_TYPE:
                    raise StoreFormatError("it is no hash")
                if reply:
                    (user_from_hash if kind == "user" else api_key_from_hash)(record_id, reply)
            except StoreFormatError as error:
                subject = f"{'user' if kind == 'user' else 'API key'} {record_id}"
                found.append(Difference(subject, "record", "a record that can be read", str(error)))
        return found

    async def _missing(self, kind: Literal["user", "key"], ids: Sequence[str]) -> list[Entry]:
        records = [_fields(reply) for reply in await self._read_records(kind, ids)]
        entries = [
            entry
            for record_id, fields in zip(ids, records, strict=True)
            if fields
            for entry in self._indexes.entries_of(kind, record_id, fields)
        ]
        replies = await self._nodes.read_many([_look_up(entry) for entry in entries])
        return [entry for entry, reply in zip(entries, replies, strict=True) if _found(entry, reply) != entry.value]

    async def _unfounded(self, entries: Sequence[Entry]) -> list[Entry]:
        replies = await self._nodes.read_many([("HGETALL", as_bytes(entry.record_key)) for entry in entries])
        return [entry for entry, reply in zip(entries, replies, strict=True) if entry.belongs(_fields(reply)) is False]

    async def _entries(self, index: Index) -> AsyncIterator[list[Entry]]:
        [kind] = await self._nodes.read_many([("TYPE", index.key)])
        if kind.decode() != index.kind:
            return
        async for page in self._nodes.scan_members("SSCAN" if index.kind == "set" else "HSCAN", index.key):
            step = 1 if index.kind == "set" else 2
            pairs = list(zip(page[::step], page[step - 1 :: step], strict=True))
            for start in range(0, len(pairs), PAGE_RECORDS):
                yield [self._indexes.entry(index, *pair) for pair in pairs[start : start + PAGE_RECORDS]]

    async def _owned_entries(self, users: Sequence[str]) -> AsyncIterator[list[Entry]]:
        """Yield what the sets of some users' API keys hold."""
        owned = [self._indexes.owned(user) for user in users]
        replies = await self._nodes.read_many([("SMEMBERS", index.key) for index in owned])
        entries = [
            self._indexes.entry(index, key_id, key_id)
            for index, reply in zip(owned, replies, strict=True)
            for key_id in as_texts(reply)
        ]
        for start in range(0, len(entries), PAGE_RECORDS):
            yield entries[start : start + PAGE_RECORDS]

    async def _judge(self, entry: Entry, *, mends: bool) -> Difference | None:
        """Return what is wrong with an entry; mend it unless another record calls for it, too."""
        look = await self._look(entry)
        if not look.is_wrong:
            return None
        difference = look.difference()
        for _ in range(LOOKS if mends else 0):
            holder = await self._holder(look)
            if holder is not None and holder.entry.belongs(holder.fields) is not False:
                break
            if await self._mend(look, holder) != b"changed":
                break
            look = await self._look(entry)
        return difference

    async def _holder(self, look: _Look) -> _Look | None:
        """Return the entry of another record that stands in this one's place; None if there is none."""
        entry = look.entry
        if entry.index.kind == "set" or look.found in (None, entry.record_id):
            return None
        return await self._look(self._indexes.entry(entry.index, entry.name, look.found or ""))

    async def _look(self, entry: Entry) -> _Look:
        record, reply = await self._nodes.read_at_once([("HGETALL", as_bytes(entry.record_key)), _look_up(entry)])
        return _Look(entry, _fields(record), _found(entry, reply))

    async def _mend(self, look: _Look, holder: _Look | None) -> bytes:
        """Set or remove an entry by `mend_index.lua`, and return its answer."""
        entry, index = look.entry, look.entry.index
        call = MendCall(
            entries=as_bytes(index.key),
            record=as_bytes(entry.record_key),
            holder_record=as_bytes((holder or look).entry.record_key),
            kind=index.kind,
            name=as_bytes(entry.name),
            id=as_bytes(entry.record_id),
            field=index.field,
            seen=as_bytes(_value(look)),
            has_place=int(entry.belongs(look.fields) or False),
            holder_id=b"" if holder is None else as_bytes(holder.entry.record_id),
            holder_seen=b"" if holder is None else as_bytes(_value(holder)),
        )
        reply: bytes = await self._nodes.run(MEND_INDEX, *MEND_INDEX.order(call))
        return reply

    async def _read_records(self, kind: Literal["user", "key"], ids: Sequence[str]) -> list[Reply]:
        key_of = self._keys.user if kind == "user" else self._keys.api_key
        return await self._nodes.read_many([("HGETALL", key_of(record_id)) for record_id in ids])


def _ids_in(page: Sequence[str], beginning: str) -> list[str]:
    """Return what follows the beginning of those keys that begin so."""
    return [key.removeprefix(beginning) for key in page if key.startswith(beginning)]


def _fields(reply: Reply) -> dict[str, str] | None:
    """Return the fields of a record that can be read; None if it is no hash."""
    if reply is WRONG_TYPE:
        return None
    return {name: value for name, value in as_text_map(reply).items() if is_unicode(value)}


def _look_up(entry: Entry) -> tuple[str, str, bytes]:
    return ("SISMEMBER" if entry.index.kind == "set" else "HGET", entry.index.key, as_bytes(entry.name))


def _found(entry: Entry, reply: Reply) -> str | None:
    if entry.index.kind == "set":
        return MEMBER if reply == 1 else None
    return None if reply is None or reply is WRONG_TYPE else as_text(reply)


def _value(look: _Look) -> str:
    """Return the value in the record that the entry is made from, as `mend_index.lua` reads it."""
    field = look.entry.index.field
    fields = look.fields or {}
    return fields.get(field, "") if field else "1" if fields else ""
