"""What controllers did to jobs and saw of them, and whether the jobs' streams agree with it.

Every controller writes a journal: a JSON line for each claim that it got, one before and one after each of its deeds.
`read_journals` makes a `ClaimHistory` of each job from them, `check_claims` compares it with all records of its stream.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from ci_common.models import EventType, JobEvent
from ci_eventstore.events.records import Fact, FactType, Record
from tests.history import Outcome, lines_of


class What(StrEnum):
    """What a controller may do to a job."""

    LINE = "line"
    SUCCEED = "complete with success"
    NOT_SUCCEED = "complete without success"
    FAIL = "fail"
    RELEASE = "release"
    CANCEL = "cancel"
    #: It leaves the ending to `ClaimedJob`, and isn't told what came of it.
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Got:
    """A claim that a controller was given."""

    controller: str
    epoch: int
    attempts: int


@dataclass(slots=True)
class Deed:
    """Something that a controller did under a claim, and how that ended."""

    controller: str
    epoch: int
    what: What
    line: str = ""
    #: Lines of one source are stored in their order.
    source: str = ""
    outcome: Outcome = Outcome.OPEN

    def __str__(self) -> str:
        return f"{self.line!r}" if self.what is What.LINE else f"to {self.what}"


@dataclass(slots=True)
class ClaimHistory:
    """All that controllers got and did of one job."""

    claims: list[Got] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)


def read_journals(journals: Iterable[Iterable[str]]) -> dict[str, ClaimHistory]:
    """Return the jobs' histories. A line without its end, the last of a process that was killed, says nothing."""
    histories = defaultdict[str, ClaimHistory](ClaimHistory)
    for journal in journals:
        deeds: dict[int, Deed] = {}
        for line in journal:
            if line.endswith("\n"):
                _take_note(histories, deeds, json.loads(line))
    return dict(histories)


def _take_note(histories: Mapping[str, ClaimHistory], deeds: dict[int, Deed], note: dict[str, Any]) -> None:
    if "attempts" in note:
        histories[note["job"]].claims.append(Got(note["controller"], note["epoch"], note["attempts"]))
    elif "outcome" in note:
        deeds[note["deed"]].outcome = Outcome(note["outcome"])
    else:
        what = What(note["what"])
        deed = Deed(note["controller"], note["epoch"], what, note.get("line", ""), note.get("source", ""))
        deeds[note["deed"]] = deed
        histories[note["job"]].deeds.append(deed)


@dataclass(slots=True)
class Term:
    """What stands in a stream from one `claimed` fact to the next; before the first one, there is term 0."""

    number: int
    #: Of the fact: its fields.
    claim: Mapping[str, Any]
    records: list[Record] = field(default_factory=list)

    @property
    def controller(self) -> str:
        """Who has the job."""
        return str(self.claim.get("controller", "nobody"))

    def ends(self) -> list[tuple[int, What]]:
        """Return how the term ends, each time with its place in the term."""
        found, reason = [], None
        for place, record in enumerate(self.records):
            if isinstance(record, Fact):
                if record.type is FactType.REQUEUED:
                    found.append((place, What.RELEASE))
                reason = {FactType.FAILED: What.FAIL, FactType.CANCELLED: What.CANCEL}.get(record.type, reason)
            elif record.type == EventType.COMPLETE:
                found.append((place, reason or (What.SUCCEED if record.success else What.NOT_SUCCEED)))
        return found


@dataclass(slots=True)
class Story:
    """A job's stream, term by term, and in which terms each line stands."""

    terms: list[Term]
    lines: Mapping[str, list[int]]
    #: The lines in their order.
    order: Mapping[str, int]

    def attempt(self, term: Term) -> int:
        """Return which attempt a term is: what was given back in order doesn't count."""
        return term.number - sum(
            any(what is What.RELEASE for _, what in one.ends()) for one in self.terms[: term.number]
        )

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Story":
        """Divide a stream into its terms."""
        terms, lines = [Term(0, {})], defaultdict[str, list[int]](list)
        order: dict[str, int] = {}
        for record in records:
            if isinstance(record, Fact) and record.type is FactType.CLAIMED:
                terms.append(Term(len(terms), record.fields))
                continue
            terms[-1].records.append(record)
            for line in lines_of(record) if isinstance(record, JobEvent) else ():
                lines[line].append(terms[-1].number)
                order.setdefault(line, len(order))
        return cls(terms, dict(lines), order)


#: Yields what contradicts the history, as sentences.
Rule = Callable[[ClaimHistory, Story], Iterator[str]]


def claims_are_counted(history: ClaimHistory, story: Story) -> Iterator[str]:
    """The n-th `claimed` fact has epoch n, and says that it is the attempt after those that were lost."""
    for term in story.terms[1:]:
        epoch, attempts = term.claim["epoch"], term.claim["attempts"]
        if (epoch, attempts) != (term.number, story.attempt(term)):
            yield f"claim {term.number} has epoch {epoch} and says that it is attempt {attempts}"


def claims_are_given_once(history: ClaimHistory, story: Story) -> Iterator[str]:
    """Every claim that a controller got is in the stream as it was told, and no other controller got it."""
    holders = {term.claim["epoch"]: term for term in story.terms[1:]}
    given = set()
    for got in history.claims:
        term = holders.get(got.epoch)
        if term is None or (term.controller, term.claim["attempts"]) != (got.controller, got.attempts):
            yield f"{got.controller} got claim {got.epoch} as attempt {got.attempts}, and the stream hasn't that"
        if got.epoch in given:
            yield f"claim {got.epoch} was given more than once, also to {got.controller}"
        given.add(got.epoch)


def lines_are_there_once(history: ClaimHistory, story: Story) -> Iterator[str]:
    """What was acknowledged is there, what was refused isn't, nothing is there twice, or written by nobody."""
    written = {deed.line for deed in history.deeds if deed.what is What.LINE}
    for line in story.lines:
        if line not in written and not line.startswith("["):
            yield f"nobody wrote {line!r}"
    for deed in history.deeds:
        count = len(story.lines.get(deed.line, ()))
        if deed.what is not What.LINE:
            continue
        if count > 1:
            yield f"{deed} of {deed.controller} is there {count} times"
        if count == 0 and deed.outcome is Outcome.ACKNOWLEDGED:
            yield f"{deed} of {deed.controller} is lost: it was acknowledged"
        if count > 0 and deed.outcome is Outcome.REFUSED:
            yield f"{deed} of {deed.controller} is there: it was refused"


def lines_stand_under_their_claims(history: ClaimHistory, story: Story) -> Iterator[str]:
    """Nothing that was written under a claim comes behind a newer one, or before its own."""
    for deed in history.deeds:
        for number in story.lines.get(deed.line, ()) if deed.what is What.LINE else ():
            if number != deed.epoch:
                yield f"{deed} of {deed.controller} stands behind claim {number}: it was written under {deed.epoch}"
    for line, numbers in story.lines.items():
        for number in numbers:
            is_attempt = line.startswith(f"[attempt {story.attempt(story.terms[number])}: controller")
            if line.startswith("[attempt ") and not is_attempt:
                yield f"{line!r} stands behind claim {number}"


def sources_keep_their_order(history: ClaimHistory, story: Story) -> Iterator[str]:
    """Lines that one controller sent one after the other are there in this order."""
    sent = defaultdict[tuple[str, int, str], list[str]](list)
    for deed in history.deeds:
        if deed.what is What.LINE and deed.line in story.order:
            sent[deed.controller, deed.epoch, deed.source].append(deed.line)
    for lines in sent.values():
        for before, after in itertools.pairwise(lines):
            if story.order[before] > story.order[after]:
                yield f"{before!r} stands behind {after!r}, which was sent later"


def jobs_end_once(history: ClaimHistory, story: Story) -> Iterator[str]:
    """There is one completion, and nothing visible behind it."""
    events = [record for term in story.terms for record in term.records if isinstance(record, JobEvent)]
    ends = [place for place, event in enumerate(events) if event.type == EventType.COMPLETE]
    if len(ends) != 1:
        yield f"the job is completed {len(ends)} times"
    elif ends[0] != len(events) - 1:
        yield f"{len(events) - 1 - ends[0]} events stand behind the job's end"


def nobody_writes_after_a_release(history: ClaimHistory, story: Story) -> Iterator[str]:
    """Behind a release, the job can be cancelled before its next claim, and nothing else."""
    for term in story.terms:
        released = [place for place, what in term.ends() if what is What.RELEASE]
        behind = term.records[released[0] + 1 :] if released else []
        if behind and (term.ends()[-1][1] is not What.CANCEL or len(behind) != 3):
            yield f"{len(behind)} records stand behind the release of claim {term.number}"


def ends_are_as_told(history: ClaimHistory, story: Story) -> Iterator[str]:
    """An end that was acknowledged is there under its claim, one that was refused isn't, and each end is somebody's."""
    done = {(term.number, what) for term in story.terms for _, what in term.ends()}
    wanted = defaultdict[tuple[int, What], list[Outcome]](list)
    for deed in history.deeds:
        if deed.what not in (What.LINE, What.LEAVE):
            wanted[deed.epoch, deed.what].append(deed.outcome)
            if deed.outcome is Outcome.ACKNOWLEDGED and (deed.epoch, deed.what) not in done:
                yield f"{deed.controller} was acknowledged {deed} under claim {deed.epoch}, and the stream hasn't that"
    for epoch, what in done:
        outcomes = wanted[epoch, what]
        if outcomes and all(outcome is Outcome.REFUSED for outcome in outcomes):
            yield f"the stream has '{what}' under claim {epoch}: it was refused"


def only_the_lost_lose_jobs(lost: Container[str], history: ClaimHistory, story: Story) -> Iterator[str]:
    """A job is taken from a controller only if it gave it back, or was lost itself, for a while or for good."""
    for term, following in itertools.pairwise(story.terms[1:]):
        if not term.ends() and term.controller not in lost:
            yield f"{following.controller} took the job by claim {following.number}: {term.controller} was healthy"


RULES: tuple[Rule, ...] = (
    claims_are_counted,
    claims_are_given_once,
    lines_are_there_once,
    lines_stand_under_their_claims,
    sources_keep_their_order,
    jobs_end_once,
    nobody_writes_after_a_release,
    ends_are_as_told,
)


def check_claims(history: ClaimHistory, records: Sequence[Record], lost: Container[str] | None = None) -> list[str]:
    """Return what contradicts the history in all records of a job's stream; nothing if they agree.

    With the names of the controllers that were lost, others must not have lost a job.
    """
    story = Story.of(records)
    rules = list(RULES)
    if lost is not None:
        rules.append(partial(only_the_lost_lose_jobs, lost))
    return [finding for rule in rules for finding in rule(history, story)]
