"""Which jobs retention deletes: rules, of which the first that fits a job decides. Pure.

Rules are written by people, in TOML or JSON, and kept by the store as JSON of the same form.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ci_common.models import JobStatus, as_utc
from ci_common.transitions import ENDED
from ci_common.validation import is_number
from ci_eventstore.amounts import format_duration, format_size, parse_duration, parse_size
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.jobs.state import JobState

#: What can be written in seconds, too.
LONGEST_SECONDS = 999_999_999
#: What a job counts for beside its log: about what record and listings take.
RECORD_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What becomes of ended jobs; ConfigurationError."""

    #: Only jobs that ended so; none: however they ended.
    statuses: frozenset[JobStatus] = frozenset()
    #: Only jobs of these queues; none: of any.
    queues: frozenset[str] = frozenset()
    #: How long after its end a job is deleted.
    older_than_seconds: float | None = None
    #: How many bytes the jobs of this rule may have together, before the oldest of them are deleted.
    max_bytes: int | None = None
    #: Whether jobs are deleted, too, whose logs aren't sealed.
    takes_unsealed: bool = False
    #: Whether its jobs are never deleted.
    keeps: bool = False

    def __post_init__(self) -> None:
        """Refuse what would take jobs that nobody meant."""
        if not self.statuses <= ENDED:
            raise ConfigurationError("status: a job that hasn't ended is never deleted: cancel it first")
        if self.older_than_seconds is not None:
            check_age("older-than", self.older_than_seconds)
        if self.max_bytes is not None and not is_number(self.max_bytes, 1, is_whole=True):
            raise ConfigurationError(f"max-size: {self.max_bytes!r} must be a number of bytes, at least 1")
        if self.keeps == (self.older_than_seconds is not None or self.max_bytes is not None):
            raise ConfigurationError("it must have older-than, max-size or both, or else keep = true")

    def fits(self, state: JobState) -> bool:
        """Return whether a job that has ended so is one of this rule's."""
        return state.status in (self.statuses or ENDED) and (not self.queues or state.queue in self.queues)

    def may_take(self, job_id: str, state: JobState) -> bool:
        """Return whether a job of this rule is deleted when its time has come; ProjectionDamagedError."""
        is_free = state.status in ENDED and state.claim is None and not state.is_kept and not self.keeps
        return is_free and (self.takes_unsealed or is_sealed(job_id, state))


def check_age(name: str, seconds: float) -> None:
    """Refuse what is no age; ConfigurationError."""
    if not is_number(seconds, 0, LONGEST_SECONDS):
        raise ConfigurationError(
            f"{name}: {seconds!r} must be a number of seconds from 0 to {LONGEST_SECONDS}, 31 years"
        )


def is_sealed(job_id: str, state: JobState) -> bool:
    """Return whether all of a job's log lies in segments; ProjectionDamagedError."""
    return bool(state.log) and references_in(job_id, state.log or "")[-1].last == Place(state.position, state.part)


def size_of(job_id: str, state: JobState) -> int:
    """Return what a job counts for: the bytes of its segments, or of its text if not all of that is sealed."""
    log = state.log or ""
    sealed = sum(one.size for one in references_in(job_id, log)) if is_sealed(job_id, state) else None
    unsealed = 0 if state.deleted_to == state.position else state.bytes
    return RECORD_BYTES + (unsealed if sealed is None else sealed)


def rule_for(rules: Sequence[Rule], state: JobState) -> int | None:
    """Return the number of the first rule that fits a job, from 0; None: it is kept."""
    return next((number for number, rule in enumerate(rules) if rule.fits(state)), None)


@dataclass(slots=True)
class Selection:
    """Which jobs are deleted at one time. It is shown the jobs first, the newest first, if a rule has a size."""

    rules: Sequence[Rule]
    #: For each rule whose jobs have too many bytes: the member of the newest job that goes, and all before it go.
    cuts: dict[int, str] = field(default_factory=dict)
    _sums: dict[int, int] = field(default_factory=dict)

    def needs_more(self) -> bool:
        """Return whether jobs that are older have to be shown to it, too."""
        return any(number not in self.cuts and rule.max_bytes is not None for number, rule in enumerate(self.rules))

    def add(self, job_id: str, state: JobState) -> None:
        """Count the next job; what its rule wouldn't take isn't counted. ProjectionDamagedError."""
        number = rule_for(self.rules, state)
        rule = None if number is None else self.rules[number]
        if number is None or rule is None or rule.max_bytes is None or number in self.cuts:
            return
        if rule.may_take(job_id, state):
            self._sums[number] = self._sums.get(number, 0) + size_of(job_id, state)
            if self._sums[number] > rule.max_bytes:
                self.cuts[number] = state.ended_member(job_id)

    def takes(self, job_id: str, state: JobState, now: datetime) -> bool:
        """Return whether a job in this state is deleted; ProjectionDamagedError."""
        number = rule_for(self.rules, state)
        if number is None or not self.rules[number].may_take(job_id, state):
            return False
        time = due(self.rules[number], state)
        return (time is not None and time <= now) or state.ended_member(job_id) <= self.cuts.get(number, "")


def due(rule: Rule, state: JobState) -> datetime | None:
    """Return when a job that has ended becomes old enough; None: never."""
    if rule.older_than_seconds is None:
        return None
    try:
        return as_utc(state.end_time or state.created_at) + timedelta(seconds=rule.older_than_seconds)
    except OverflowError:
        return None


def outlook(rules: Sequence[Rule], job_id: str, state: JobState) -> str:
    """Return what the rules will do with a job, in words; ProjectionDamagedError."""
    if state.is_kept:
        return "it is kept: no rule deletes it"
    if state.status not in ENDED or state.claim is not None:
        return "decided when it has ended"
    number = rule_for(rules, state)
    if number is None:
        return "it stays: no rule fits it"
    rule, by = rules[number], f"by rule {number + 1}"
    if rule.keeps:
        return f"it stays, {by}"
    time, ways = due(rule, state), []
    if time is not None:
        ways.append(f"from {time.astimezone():%Y-%m-%d %H:%M:%S} on")
    if rule.max_bytes is not None:
        ways.append(f"when newer jobs of the rule have {format_size(rule.max_bytes)}")
    seal = "" if rule.may_take(job_id, state) else ", once its log is sealed"
    return f"deleted {' or '.join(ways)}{seal}, {by}" if ways else f"it stays, {by}"


def read_rules(text: str, name: str, *, is_json: bool) -> list[Rule]:
    """Return the rules in a text, which is JSON or TOML; ConfigurationError says where it errs."""
    try:
        document = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: {error}") from error
    tables = document.get("rules") if isinstance(document, dict) else None
    if not isinstance(tables, list) or not tables or set(document) != {"rules"}:
        raise ConfigurationError(f"{name}: it must have rules, each of which begins with [[rules]], and nothing else")
    found = []
    for number, table in enumerate(tables, 1):
        try:
            found.append(_rule_of(table))
        except (ValueError, ConfigurationError) as error:
            raise ConfigurationError(f"{name}: rule {number}: {error}") from error
    return found


def write_rules(rules: Sequence[Rule]) -> str:
    """Return rules as JSON, which `read_rules` reads."""
    return json.dumps({"rules": [_table_of(rule) for rule in rules]}, ensure_ascii=False)


def _rule_of(table: object) -> Rule:
    """Return the rule in a table; ValueError, ConfigurationError."""
    if not isinstance(table, dict):
        raise ValueError(f"{table!r} is no table")
    if unknown := sorted(set(table) - set(_FIELDS)):
        raise ValueError(f"{unknown[0]}: there is no such field, only {', '.join(_FIELDS)}")
    given = {}
    for name, value in table.items():
        attribute, read = _FIELDS[name]
        try:
            given[attribute] = read(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return Rule(**given)


def _table_of(rule: Rule) -> Mapping[str, object]:
    return {
        **({"status": sorted(status.value for status in rule.statuses)} if rule.statuses else {}),
        **({"queue": sorted(rule.queues)} if rule.queues else {}),
        **({"older-than": format_duration(rule.older_than_seconds)} if rule.older_than_seconds is not None else {}),
        **({"max-size": format_size(rule.max_bytes)} if rule.max_bytes is not None else {}),
        **({"unsealed": True} if rule.takes_unsealed else {}),
        **({"keep": True} if rule.keeps else {}),
    }


def _texts(value: object) -> frozenset[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"{value!r} must be a text, or a list of texts")
    return frozenset(texts)


def _statuses(value: object) -> frozenset[JobStatus]:
    return frozenset(map(JobStatus, _texts(value)))


def _seconds(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} must be a text such as "30d"')
    return parse_duration(value)


def _bytes(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} must be a text such as "10GiB"')
    return parse_size(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} must be true or false")
    return value


#: What a rule is written with: which attribute it is, and how it is read.
_FIELDS: Mapping[str, tuple[str, Any]] = {
    "status": ("statuses", _statuses),
    "queue": ("queues", _texts),
    "older-than": ("older_than_seconds", _seconds),
    "max-size": ("max_bytes", _bytes),
    "unsealed": ("takes_unsealed", _flag),
    "keep": ("keeps", _flag),
}
