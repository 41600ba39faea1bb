"""The entries that users and API keys have in indexes, and whether a record says that one belongs there. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ci_common.validation import fold_email
from ci_eventstore.keys import Keys

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
    """An entry of an index that a record has, or that names a record."""

    index: Index
    #: A set's member, or a hash's field.
    name: str
    record_id: str
    record_key: str

    @property
    def value(self) -> str:
        """What the index holds under the name if the entry is there."""
        return MEMBER if self.index.kind == "set" else self.record_id

    def belongs(self, fields: Mapping[str, str] | None) -> bool | None:
        """Tell whether the record says so; None: it is there, but damaged where it should say that."""
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
        """Those that there is one of."""
        return [self.users, self.emails, self.api_keys, self.hashes]

    def owned(self, user_id: str) -> Index:
        """Return the index of a user's API keys."""
        return Index(self._keys.user_api_keys(user_id), "set", "key", "user_id", user_id)

    def entry(self, index: Index, name: str, record_id: str) -> Entry:
        """Return the entry of an index that names a record."""
        key = self._keys.user(record_id) if index.records == "user" else self._keys.api_key(record_id)
        return Entry(index, name, record_id, key)

    def entries_of(self, kind: Literal["user", "key"], record_id: str, fields: Mapping[str, str]) -> Iterator[Entry]:
        """Yield the entries that a record has to have, as far as it can be read."""
        everything, unique = (self.users, self.emails) if kind == "user" else (self.api_keys, self.hashes)
        yield self.entry(everything, record_id, record_id)
        if unique.field in fields:
            yield self.entry(unique, _folded(unique, fields[unique.field]), record_id)
        if kind == "key" and "user_id" in fields:
            yield self.entry(self.owned(fields["user_id"]), record_id, record_id)


def _folded(index: Index, text: str) -> str:
    return fold_email(text) if index.field == "email" else text
