"""The checker of claims finds every fault that is planted, and nothing where there is none."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from ci_common.models import JobEvent
from ci_eventstore.events.records import Fact, FactType, Record
from tests.claim_history import ClaimHistory, Deed, Got, What, check_claims, read_journals
from tests.history import Outcome

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ACKNOWLEDGED, UNKNOWN, REFUSED, OPEN = Outcome.ACKNOWLEDGED, Outcome.UNKNOWN, Outcome.REFUSED, Outcome.OPEN
DONE, BROKEN = JobEvent("complete", success=True), JobEvent("complete", success=False)


def claimed(number: int, controller: str = "ann", epoch: int = 0, attempts: int = 0) -> Fact:
    fields = {"epoch": epoch or number, "attempts": attempts or number, "controller": controller}
    return Fact(FactType.CLAIMED, NOW, fields)


def fact(name: FactType) -> Fact:
    return Fact(name, NOW)


def stream(*records: str | Record) -> list[Record]:
    """Return a stream: a text is a log event, whose lines end with a dot."""
    lines = [JobEvent("log", one.replace(".", "\n")) if isinstance(one, str) else one for one in records]
    return [fact(FactType.CREATED), *lines]


def line(text: str, epoch: int = 1, controller: str = "ann", outcome: Outcome = ACKNOWLEDGED) -> Deed:
    return Deed(controller, epoch, What.LINE, text, outcome=outcome)


def end(what: What, epoch: int = 1, controller: str = "ann", outcome: Outcome = ACKNOWLEDGED) -> Deed:
    return Deed(controller, epoch, what, outcome=outcome)


def history(*claims: str, deeds: Sequence[Deed] = ()) -> ClaimHistory:
    """Return a history in which these controllers got the job, one after the other."""
    return ClaimHistory([Got(name, n, n) for n, name in enumerate(claims, start=1)], list(deeds))


REQUEUED, SUCCEED = fact(FactType.REQUEUED), What.SUCCEED
CANCEL = ("[cancelled].", fact(FactType.CANCELLED), BROKEN)
TWO = (claimed(1), "a.", claimed(2, "bob"), "[attempt 2: controller ann was lost].", "b.", DONE)
TWO_DEEDS = (line("a"), line("b", 2, "bob"), end(SUCCEED, 2, "bob"))

FINE: dict[str, tuple[ClaimHistory, list[Record]]] = {
    "run": (history("ann", deeds=[line("a"), end(SUCCEED)]), stream(claimed(1), "a.", DONE)),
    "lost and taken over": (history("ann", "bob", deeds=TWO_DEEDS), stream(*TWO)),
    "killed before it was told": (ClaimHistory([Got("bob", 2, 2)], list(TWO_DEEDS)), stream(*TWO)),
    "a zombie that was refused": (
        history("ann", "bob", deeds=[*TWO_DEEDS, line("z", outcome=REFUSED), end(SUCCEED, outcome=REFUSED)]),
        stream(*TWO),
    ),
    "unknown, and there": (
        history("ann", deeds=[line("a", outcome=UNKNOWN), end(SUCCEED, outcome=UNKNOWN)]),
        stream(claimed(1), "a.", DONE),
    ),
    "unknown, and not there": (
        history("ann", "bob", deeds=[*TWO_DEEDS, line("u", outcome=UNKNOWN), end(What.RELEASE, outcome=OPEN)]),
        stream(*TWO),
    ),
    "released": (
        ClaimHistory([Got("ann", 1, 1), Got("bob", 2, 1)], [end(What.RELEASE), end(SUCCEED, 2, "bob")]),
        stream(claimed(1), REQUEUED, claimed(2, "bob", attempts=1), "[begun again: it was given back].", DONE),
    ),
    "released, then cancelled": (
        history("ann", deeds=[end(What.RELEASE)]),
        stream(claimed(1), REQUEUED, *CANCEL),
    ),
    "cancelled before any claim": (history(), stream(*CANCEL)),
    "failed": (
        history("ann", deeds=[end(What.FAIL)]),
        stream(claimed(1), "[broken].", fact(FactType.FAILED), BROKEN),
    ),
    "an end told twice": (
        history("ann", deeds=[end(SUCCEED, outcome=UNKNOWN), end(SUCCEED, outcome=REFUSED)]),
        stream(claimed(1), DONE),
    ),
}


@pytest.mark.parametrize(("told", "records"), FINE.values(), ids=FINE)
def test_what_agrees_is_not_complained_of(told: ClaimHistory, records: list[Record]) -> None:
    """Losses, refusals and unknown outcomes are no faults."""
    assert check_claims(told, records, lost={"ann"}) == []


PLANTED: dict[str, tuple[ClaimHistory, list[Record], list[str]]] = {
    "never ended": (history("ann"), stream(claimed(1)), ["the job is completed 0 times"]),
    "ended twice": (history("ann"), stream(claimed(1), DONE, DONE), ["the job is completed 2 times"]),
    "more behind the end": (
        history("ann", deeds=[line("a")]),
        stream(claimed(1), DONE, "a."),
        ["1 events stand behind the job's end"],
    ),
    "a zombie's line": (
        history("ann", "bob", deeds=[*TWO_DEEDS, line("z")]),
        stream(*TWO[:-1], "z.", DONE),
        ["'z' of ann stands behind claim 2: it was written under 1"],
    ),
    "a line before its claim": (
        history("ann", deeds=[line("a")]),
        stream("a.", claimed(1), DONE),
        ["'a' of ann stands behind claim 0: it was written under 1"],
    ),
    "a beginning of another attempt": (
        history("ann"),
        stream(claimed(1), "[attempt 2: controller ann was lost].", DONE),
        ["'[attempt 2: controller ann was lost]' stands behind claim 1"],
    ),
    "a zombie's end": (
        history("ann", "bob", deeds=[end(SUCCEED), end(SUCCEED, 2, "bob", OPEN)]),
        stream(claimed(1), claimed(2, "bob"), DONE),
        ["ann was acknowledged to complete with success under claim 1, and the stream hasn't that"],
    ),
    "an attempt counted that was given back": (
        history("ann", "ann"),
        stream(claimed(1), REQUEUED, claimed(2, attempts=3), DONE),
        [
            "claim 2 has epoch 2 and says that it is attempt 3",
            "ann got claim 2 as attempt 2, and the stream hasn't that",
        ],
    ),
    "an epoch left out": (
        ClaimHistory([Got("ann", 2, 1)]),
        stream(claimed(1, epoch=2), DONE),
        ["claim 1 has epoch 2 and says that it is attempt 1"],
    ),
    "a claim for two": (
        ClaimHistory([Got("ann", 1, 1), Got("bob", 1, 1)]),
        stream(claimed(1), DONE),
        ["bob got claim 1 as attempt 1, and the stream hasn't that", "claim 1 was given more than once, also to bob"],
    ),
    "a claim that isn't there": (
        ClaimHistory([Got("ann", 1, 1), Got("ann", 2, 2)]),
        stream(claimed(1), DONE),
        ["ann got claim 2 as attempt 2, and the stream hasn't that"],
    ),
    "a lost line": (
        history("ann", deeds=[line("a")]),
        stream(claimed(1), DONE),
        ["'a' of ann is lost: it was acknowledged"],
    ),
    "a line twice": (
        history("ann", deeds=[line("a", outcome=UNKNOWN)]),
        stream(claimed(1), "a.a.", DONE),
        ["'a' of ann is there 2 times"],
    ),
    "a refused line": (
        history("ann", deeds=[line("a", outcome=REFUSED)]),
        stream(claimed(1), "a.", DONE),
        ["'a' of ann is there: it was refused"],
    ),
    "a foreign line": (history("ann"), stream(claimed(1), "x.", DONE), ["nobody wrote 'x'"]),
    "swapped lines": (
        history("ann", deeds=[line("a"), line("b")]),
        stream(claimed(1), "b.a.", DONE),
        ["'a' stands behind 'b', which was sent later"],
    ),
    "a line after the release": (
        ClaimHistory([Got("ann", 1, 1), Got("bob", 2, 1)], [line("a")]),
        stream(claimed(1), REQUEUED, "a.", claimed(2, "bob", attempts=1), DONE),
        ["1 records stand behind the release of claim 1"],
    ),
    "a lost release": (
        history("ann", "bob", deeds=[end(What.RELEASE)]),
        stream(claimed(1), claimed(2, "bob"), DONE),
        ["ann was acknowledged to release under claim 1, and the stream hasn't that"],
    ),
    "another end than that told": (
        history("ann", deeds=[end(What.FAIL)]),
        stream(claimed(1), DONE),
        ["ann was acknowledged to fail under claim 1, and the stream hasn't that"],
    ),
    "a refused end": (
        history("ann", deeds=[end(SUCCEED, outcome=REFUSED)]),
        stream(claimed(1), DONE),
        ["the stream has 'complete with success' under claim 1: it was refused"],
    ),
    "a job taken from a healthy controller": (
        history("bob", "ann"),
        stream(claimed(1, "bob"), claimed(2), DONE),
        ["ann took the job by claim 2: bob was healthy"],
    ),
    "a repeated claim that counts twice": (
        ClaimHistory([Got("bob", 2, 2)]),
        stream(claimed(1, "bob"), claimed(2, "bob"), DONE),
        ["bob took the job by claim 2: bob was healthy"],
    ),
}


@pytest.mark.parametrize(("told", "records", "findings"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_found(told: ClaimHistory, records: list[Record], findings: list[str]) -> None:
    """Each fault is told in a sentence, and no other."""
    assert check_claims(told, records, lost={"ann"}) == findings


def test_who_may_lose_jobs_is_checked_only_if_it_is_known() -> None:
    """Without the names of the lost, any controller may have lost its job."""
    told, records, _ = PLANTED["a job taken from a healthy controller"]
    assert check_claims(told, records) == []


def test_journals_become_histories() -> None:
    """A deed without an outcome stays open, as the last one of a process that was killed in the middle of a line."""
    head = {"controller": "ann", "job": "j", "epoch": 1}
    notes = [
        {**head, "attempts": 1},
        {**head, "deed": 1, "what": "line", "line": "a", "source": "log"},
        {"deed": 1, "outcome": "acknowledged"},
        {**head, "deed": 2, "what": "fail"},
        {"deed": 2, "outcome": "refused"},
    ]
    lines = [json.dumps(note) + "\n" for note in notes]
    told = read_journals([[*lines[:-1], lines[-1][:9]], [lines[0].replace('"j"', '"k"')]])
    deeds = [Deed("ann", 1, What.LINE, "a", "log", ACKNOWLEDGED), Deed("ann", 1, What.FAIL)]
    assert told == {"j": ClaimHistory([Got("ann", 1, 1)], deeds), "k": ClaimHistory([Got("ann", 1, 1)])}
