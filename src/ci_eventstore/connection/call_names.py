"""What a script is called with: one Python tuple names its keys and arguments, for both sides.

    class Completion(NamedTuple):
        hash: Key
        payload: bytes

    class Call(NamedTuple):
        leases: Key
        number: int
        completions: Sequence[Completion]
        joins: Sequence[Key]

A `Key` goes to KEYS, anything else to ARGV; what comes in any number stands last. In Lua, `leases` and `number` are
locals, `number` a number as its type says. `#completions` is how many there are, `completions.payload(i)` that of
one, `joins(i)` one of the keys, and `joins.places()` the first and the last place of all, for `unpack(KEYS, ..)`.
These are replaced by a plain `ARGV[2 * i - 1]` when the script is read: a call takes what it takes with places that are
counted by hand. A tuple has methods `index` and `count`: nothing can have these names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

#: What a key of a script is annotated with.
Key = Annotated[str | bytes, "a key"]
Value = str | int | bytes

_SEQUENCE: Any = Sequence


@dataclass(frozen=True, slots=True)
class _Group:
    """A field that comes in any number."""

    #: Its place in the tuple.
    place: int
    name: str
    #: The fields of one, those that go to KEYS and those that go to ARGV; "" if each is a key or a value itself.
    keys: tuple[str, ...]
    values: tuple[str, ...]
    numbers: frozenset[str]
    #: Whether each is a key or a value itself, not a tuple of them.
    is_flat: bool


class CallNames:
    """The order of a script's keys and arguments, and the Lua that names them."""

    def __init__(self, call: type[tuple[Any, ...]]) -> None:
        """Take a NamedTuple: keys, then values, then sequences of keys, of values, or of such tuples."""
        kinds = call.__annotations__
        fixed = {name: kind for name, kind in kinds.items() if get_origin(kind) is not _SEQUENCE}
        self._numbers = frozenset(name for name, kind in fixed.items() if kind is int)
        self._keys = tuple(name for name, kind in fixed.items() if kind is Key)
        self._values = tuple(name for name in fixed if name not in self._keys)
        self._groups = [
            _group(place, name, get_args(kinds[name])[0]) for place, name in enumerate(kinds) if name not in fixed
        ]
        if [*kinds] != [*self._keys, *self._values, *(group.name for group in self._groups)]:
            raise TypeError(f"{call.__name__} has to name keys, then values, then what comes in any number")
        last_with_keys = next((group for group in reversed(self._groups) if group.keys), None)
        last_with_values = next((group for group in reversed(self._groups) if group.values), None)
        #: How many of a group there are is sent, but of the last one of KEYS and the last one of ARGV, where it shows.
        self._counted = [group for group in self._groups if group not in (last_with_keys, last_with_values)]
        self._shown = {
            **({} if last_with_keys is None else {last_with_keys.name: "KEYS"}),
            **({} if last_with_values is None else {last_with_values.name: "ARGV"}),
        }

        # What `order` goes by, for each call.
        self._first_value, self._first_group = len(self._keys), len(fixed)
        self._places_of_counted = [group.place for group in self._counted]
        self._steps = [(group.place, len(group.keys), group.is_flat) for group in self._groups]

    @property
    def fields(self) -> list[str]:
        """All names, those of groups with the names of their fields: `jobs.id`."""
        members = [
            f"{group.name}.{member}" if member else group.name
            for group in self._groups
            for member in (*group.keys, *group.values)
        ]
        return [*self._keys, *self._values, *members]

    def order(self, call: tuple[Any, ...]) -> tuple[list[str | bytes], list[Value]]:
        """Return the keys and the arguments of a call."""
        keys: list[Any] = [*call[: self._first_value]]
        arguments: list[Any] = [*call[self._first_value : self._first_group]]
        arguments += [len(call[place]) for place in self._places_of_counted]
        for place, width, is_flat in self._steps:
            if is_flat:
                side = keys if width else arguments
                side += call[place]
            else:
                for one in call[place]:
                    keys += one[:width]
                    arguments += one[width:]
        return keys, arguments

    def head(self, script: str) -> str:
        """Return the Lua that names what a script uses of its keys and arguments."""
        names = [(name, f"KEYS[{place}]") for place, name in enumerate(self._keys, 1)]
        for place, name in enumerate((*self._values, *(_count_name(group) for group in self._counted)), 1):
            is_number = name in self._numbers or place > len(self._values)
            names.append((name, f"ARGV[{place}] + 0" if is_number else f"ARGV[{place}]"))
        found = [(name, value) for name, value in names if is_named(name, script)]
        lines = ""
        for start in range(0, len(found), 8):
            some = found[start : start + 8]
            lines += f"local {', '.join(name for name, _ in some)} = {', '.join(value for _, value in some)}\n"
        return lines

    def expand(self, script: str) -> str:
        """Return a script in which what it says of groups is replaced by places in KEYS and ARGV."""
        if not self._groups:
            return script
        pattern = "|".join(group.name for group in self._groups)
        names = re.compile(rf"#({pattern})\b|(?<![\w.:])({pattern})(?:\.(\w+))?\(((?:[^()]|\([^()]*\))*)\)")
        groups = {group.name: group for group in self._groups}

        def replace(match: re.Match[str]) -> str:
            if match[1]:
                return _count_name(groups[match[1]])
            group, member, index = groups[match[2]], match[3] or "", match[4]
            if member == "places":
                return self._places(group)
            return self._place(group, member, names.sub(replace, index))

        return self._counts(names.sub(replace, script))

    def _counts(self, script: str) -> str:
        """Put in front of a script how many there are of a group, and where it begins if that isn't fixed."""
        lines = ""
        for group in reversed(self._groups):
            line = ""
            if group not in self._counted and is_named(_count_name(group), lines + script):
                table = self._shown[group.name]
                width = len(group.values if table == "ARGV" else group.keys)
                size = f"{'last - 1' if table == 'ARGV' else '#KEYS'} - {self._before(group, table)}"
                line = f"local {_count_name(group)} = {size if width == 1 else f'({size}) / {width}'}\n"
            for table in ("KEYS", "ARGV"):
                if f"before_{group.name}_{table}" in lines + script:
                    line += f"local before_{group.name}_{table} = {self._before(group, table)}\n"
            lines = line + lines
        return lines + script

    def _place(self, group: _Group, member: str, index: str) -> str:
        """Return the Lua for a field of the `index`-th of a group."""
        if member not in (*group.keys, *group.values):
            raise ValueError(f"{group.name} has no {member!r}")
        table, members = ("KEYS", group.keys) if member in group.keys else ("ARGV", group.values)
        width, fixed = len(members), self._fixed(group, table)
        place = members.index(member) + 1 - width
        factor = index if re.fullmatch(r"\w+", index) else f"({index})"
        step = factor if width == 1 else f"{width} * {factor}"
        before = f" + before_{group.name}_{table}" if fixed is None else ""
        place += fixed or 0
        offset = f" {'-' if place < 0 else '+'} {abs(place)}" if place else ""
        text = f"{table}[{step}{offset}{before}]"
        return f"({text} + 0)" if member in group.numbers else text

    def _places(self, group: _Group) -> str:
        """Return the Lua for the first and the last place of a group, in ARGV if it has values, else in KEYS."""
        table, width = ("ARGV", len(group.values)) if group.values else ("KEYS", len(group.keys))
        fixed = self._fixed(group, table)
        before = f"before_{group.name}_{table}" if fixed is None else str(fixed)
        count = _count_name(group) if width == 1 else f"{width} * {_count_name(group)}"
        return f"{before} + 1, {before} + {count}"

    def _fixed(self, group: _Group, table: str) -> int | None:
        """Return how many places of a table come before a group; None if other groups do."""
        before = self._before(group, table)
        return int(before) if before.isdigit() else None

    def _before(self, group: _Group, table: str) -> str:
        """Return the Lua for how many places of a table come before a group."""
        total = len(self._keys) if table == "KEYS" else len(self._values) + len(self._counted)
        terms = [str(total)]
        for other in self._groups[: self._groups.index(group)]:
            width = len(other.keys if table == "KEYS" else other.values)
            if width:
                terms.append(_count_name(other) if width == 1 else f"{width} * {_count_name(other)}")
        return " + ".join(terms) if len(terms) == 1 else f"({' + '.join(terms)})"


def is_named(name: str, lua: str) -> bool:
    """Return whether a name stands in a text of Lua without comments; to collect all names takes ten times as long."""
    at = lua.find(name)
    while at >= 0:
        if not (_is_of_name(lua[at - 1 : at]) or _is_of_name(lua[at + len(name) : at + len(name) + 1])):
            return True
        at = lua.find(name, at + 1)
    return False


def _is_of_name(character: str) -> bool:
    return character.isalnum() or character == "_"


def _count_name(group: _Group) -> str:
    return f"count_of_{group.name}"


def _group(place: int, name: str, one: Any) -> _Group:
    """Return the group of a sequence whose items are keys, values, or tuples of both."""
    kinds: Mapping[str, Any] = getattr(one, "__annotations__", {}) if isinstance(one, type) else {}
    if not kinds:
        return _Group(place, name, ("",) if one is Key else (), () if one is Key else ("",), frozenset(), is_flat=True)
    keys = tuple(member for member, kind in kinds.items() if kind is Key)
    values = tuple(member for member in kinds if member not in keys)
    if [*kinds] != [*keys, *values]:
        raise TypeError(f"{one.__name__} has to name keys, then values")
    numbers = frozenset(member for member, kind in kinds.items() if kind is int)
    return _Group(place, name, keys, values, numbers, is_flat=False)
