"""The settings of a repository, beside the server's address."""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from ci_common.validation import MAX_EVENT_BYTES, is_number
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.events.append import HEAD_BYTES
from ci_eventstore.keys import Keys


def check_number(settings: Any, name: str, least: float, most: float = math.inf, *, is_whole: bool = False) -> None:
    """Raise ConfigurationError unless a setting is a number between two limits, both included."""
    value = getattr(settings, name)
    if not is_number(value, -math.inf, is_whole=is_whole):
        raise ConfigurationError(f"{name}={value!r} must be a {'whole ' if is_whole else ''}number")
    if not least <= value <= most:
        limits = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        raise ConfigurationError(f"{name}={value} must be {limits}")


Durability = Literal["server", "replicated"]
Access = Literal["read", "write"]


class GivenSettings(TypedDict, total=False):
    """The settings that a repository may be given as keywords, each as in `Settings`."""

    prefix: str
    partitions: int | None
    max_event_bytes: int
    max_head_bytes: int
    durability: Durability
    replicas: int
    access: Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a repository; ConfigurationError for what can't be."""

    #: Repositories of different prefixes never see each other.
    prefix: str = "ci"
    #: Fixed with the first `initialize()` of a store. None: as many as the store has, one if it is new.
    partitions: int | None = None
    #: The most UTF-8 bytes of one event's data.
    max_event_bytes: int = MAX_EVENT_BYTES
    #: The most bytes of text that a log has before it only keeps its end.
    max_head_bytes: int = HEAD_BYTES
    #: When a write is acknowledged: when the server has it, or when replicas have it too; if they don't confirm it in
    #: time, NotReplicatedError.
    durability: Durability = "server"
    #: How many replicas must have a replicated write. If it is all, any of them may take over, and none may be away.
    replicas: int = 1
    #: Whether anything is ever written; else writes raise ReadOnlyAccessError, and a reader's rights are enough.
    access: Access = "write"

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        _ = self.keys
        if self.durability not in ("server", "replicated"):
            raise ConfigurationError(f"durability={self.durability!r} must be 'server' or 'replicated'")
        if self.access not in ("read", "write"):
            raise ConfigurationError(f"access={self.access!r} must be 'read' or 'write'")
        if self.replicas != 1 and self.durability != "replicated":
            raise ConfigurationError(f"replicas={self.replicas} needs durability='replicated'")
        for name in ("max_event_bytes", "max_head_bytes", "replicas"):
            check_number(self, name, 1, is_whole=True)

    @property
    def keys(self) -> Keys:
        """The names of all keys under the prefix."""
        return Keys(self.prefix, 1 if self.partitions is None else self.partitions)

    @property
    def awaited_replicas(self) -> int:
        """How many replicas must have a write before it is acknowledged."""
        return self.replicas if self.durability == "replicated" else 0
