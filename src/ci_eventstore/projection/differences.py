"""Where the store's derived data isn't what its source says. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: Called now and then with the number of jobs looked at, and about how many there are.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One place that differs; None means that nothing is there."""

    #: What it is about, such as `job 4f1c` or `user 7`.
    subject: str
    #: Where it differs, such as `field status`, `listing {ci:0}:jobs:queued`.
    place: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        """Return the difference in one line; bytes that aren't UTF-8 are escaped, so that it can be printed."""
        line = f"{self.subject}: {self.place}: expected {self.expected!r}, found {self.found!r}"
        return line.encode("utf-8", "backslashreplace").decode()


def compare(subject: str, kind: str, expected: Mapping[str, str], found: Mapping[str, str]) -> list[Difference]:
    """Return the differences between two mappings, in the order of their names."""
    return [
        Difference(subject, f"{kind} {name}", expected.get(name), found.get(name))
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
