"""Reads systemd's units, in which a name may come several times."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNITS = Path(__file__).resolve().parents[2] / "examples" / "systemd"
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Unit:
    """A file of systemd: sections with names and all values of each."""

    name: str
    sections: Mapping[str, Mapping[str, list[str]]]

    def values(self, section: str, name: str) -> list[str]:
        """Return all values of a name, in their order."""
        return self.sections[section].get(name, [])

    def service(self, name: str) -> str:
        """Return the one value of a name in [Service]; ValueError if there are others."""
        [value] = self.values("Service", name)
        return value

    def command(self, instance: str = "") -> list[str]:
        """Return the words of ExecStart, for an instance of a template."""
        return shlex.split(self.service("ExecStart").replace("%i", instance))

    @property
    def settings(self) -> dict[str, str]:
        """The variables that the unit sets."""
        return dict(word.split("=", 1) for word in self.values("Service", "Environment"))


def read_unit(path: Path) -> Unit:
    """Read a unit; ValueError for a line that is none of it."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] | None = None
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = sections.setdefault(line[1:-1], {})
        elif section is None or "=" not in line:
            raise ValueError(f"{line!r} of {path.name} is no setting in a section")
        else:
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return Unit(path.name, sections)


def seconds(text: str) -> int:
    """Return a time such as 30, 5m or 12h in seconds."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(number) * _SECONDS[text.removeprefix(number) or "s"]
