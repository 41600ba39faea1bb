"""Reads a Dockerfile and a compose file as Docker does, as far as those of this project go."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_VARIABLE = re.compile(r"\$\{(\w+)(?::\?([^}]*))?\}")


@dataclass(frozen=True)
class Stage:
    """One `FROM` of a Dockerfile and what follows it."""

    source: str
    name: str
    instructions: Sequence[tuple[str, str]]

    def values(self, keyword: str) -> list[str]:
        """Return what stands after each instruction of a kind."""
        return [value for found, value in self.instructions if found == keyword]

    def command(self, keyword: str) -> list[str]:
        """Return the words of the last CMD or ENTRYPOINT, which has to be in the form that needs no shell."""
        return read_words(self.values(keyword)[-1])

    @property
    def health_check(self) -> list[str]:
        """The words of the command that says whether a container is healthy."""
        return read_words(self.values("HEALTHCHECK")[-1].partition("CMD ")[2])

    @property
    def settings(self) -> dict[str, str]:
        """The variables of its environment."""
        return dict(word.split("=", 1) for value in self.values("ENV") for word in shlex.split(value))

    @property
    def labels(self) -> dict[str, str]:
        """What it says of itself."""
        return dict(word.split("=", 1) for value in self.values("LABEL") for word in shlex.split(value))


def read_words(text: str) -> list[str]:
    """Return the words of a command that is written as a list; ValueError for one that a shell would run."""
    words: list[str] = json.loads(text)
    return words


def read_dockerfile(text: str) -> list[Stage]:
    """Return the stages; ValueError for a line that is no instruction."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        found = re.fullmatch(r"([A-Z]+) (.+)", line)
        if found is None:
            raise ValueError(f"{line!r} is no instruction")
        keyword, value = found.groups()
        if keyword == "FROM":
            source, _, name = value.partition(" AS ")
            stages.append(Stage(source, name, []))
        elif stages:
            stages[-1] = Stage(stages[-1].source, stages[-1].name, (*stages[-1].instructions, (keyword, value.strip())))
        else:
            raise ValueError(f"{line!r} stands before the first FROM")
    return stages


def read_compose(variables: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what docker-compose.yml says with these variables; LookupError if it needs another one."""

    def value_of(found: re.Match[str]) -> str:
        if found[1] not in variables:
            raise LookupError(f"{found[1]} {found[2] or 'is missing'}")
        return variables[found[1]]

    text = (ROOT / "docker-compose.yml").read_text()
    # Comments, which mention variables, aren't read.
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    parsed: Mapping[str, Any] = yaml.safe_load(_VARIABLE.sub(value_of, "\n".join(lines)))
    return parsed


#: The image that containers of this project are made from.
IMAGE = read_dockerfile((ROOT / "Dockerfile").read_text())[-1]
