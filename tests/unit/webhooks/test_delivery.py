"""What a webhook sends next, and what becomes of it: tables of the pure rules, and a model of a day."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as ForeignVerifier
from standardwebhooks import WebhookVerificationError

from ci_common.models import utc_now
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.webhooks.delivery import (
    FIRST_PAUSE_MS,
    LEAST_TRIES,
    LONGEST_PAUSE_MS,
    MAX_WAITING,
    RETRY_MS,
    TOGETHER,
    Message,
    Outcome,
    Plan,
    admit,
    begun_anew,
    pause_ms,
    plan,
    settle,
    signed,
)
from ci_eventstore.webhooks.webhook import GAP, Secret, Webhook

NOW = 1_900_000_000_000
SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=")
HOOK = Webhook(
    id="w",
    url="https://a.example/",
    user_id=None,
    events=("job.ended",),
    created_ms=NOW,
    secrets=(SECRET,),
    enabled_ms=0,
)
FAILING = replace(HOOK, failures=3, failing_since_ms=NOW - 60_000, pause_until_ms=NOW + 1000)
ACCEPTED, REFUSED, GONE = Outcome(204), Outcome(500), Outcome(410)


def message(number: int, **more: int) -> Message:
    return Message(f"msg_{number}", "job.ended", NOW + number, f"job-{number}", "completed", **more)


MANY = [message(number) for number in range(9)]
TRIED = message(0, attempts=1, since_ms=NOW - 1, due_ms=NOW + 500)


@pytest.mark.parametrize(
    ("webhook", "messages", "expected"),
    [
        (HOOK, [], Plan()),
        (replace(HOOK, disabled_ms=NOW), MANY, Plan()),
        (HOOK, [MANY[1], MANY[0]], Plan([MANY[0], MANY[1]])),
        (HOOK, MANY, Plan(MANY[:TOGETHER])),
        (HOOK, [TRIED], Plan(wait_ms=500)),
        (HOOK, [TRIED, MANY[1]], Plan([MANY[1]])),
        # One at a time while it fails, when its pause is over; first those that were tried least.
        (FAILING, MANY, Plan(wait_ms=1000)),
        (replace(FAILING, pause_until_ms=NOW), [TRIED, *MANY[1:]], Plan([MANY[1]])),
        (replace(FAILING, pause_until_ms=NOW), [TRIED], Plan([TRIED])),
        # A longer pause than any is of a clock that was ahead.
        (replace(FAILING, pause_until_ms=NOW + 10 * LONGEST_PAUSE_MS), [TRIED], Plan([TRIED])),
        (
            HOOK,
            [replace(TRIED, due_ms=NOW + 2 * LONGEST_PAUSE_MS)],
            Plan([replace(TRIED, due_ms=NOW + 2 * LONGEST_PAUSE_MS)]),
        ),
    ],
)
def test_what_comes_next(webhook: Webhook, messages: Sequence[Message], expected: Plan) -> None:
    """The oldest and least tried come first, and pauses are kept."""
    assert plan(webhook, messages, NOW) == expected


@pytest.mark.parametrize(
    ("failures", "jitter", "expected"),
    [
        (1, 0.0, FIRST_PAUSE_MS),
        (1, 1.0, FIRST_PAUSE_MS // 2),
        (2, 0.0, 3 * FIRST_PAUSE_MS),
        (4, 0.0, 27 * FIRST_PAUSE_MS),
        (9, 0.0, LONGEST_PAUSE_MS),
        (10_000, 0.5, LONGEST_PAUSE_MS * 3 // 4),
    ],
)
def test_pauses_grow_to_a_quarter_of_an_hour(failures: int, jitter: float, expected: int) -> None:
    """Each is three times the one before, less up to a half, so that webhooks don't come back together."""
    assert pause_ms(failures, jitter) == expected


def test_an_accepted_message_is_done_and_ends_the_failing() -> None:
    """The last error stays to be seen."""
    settled = settle(replace(FAILING, last_error="what it was"), [(message(1), ACCEPTED)], NOW, 0)
    assert (settled.done, settled.kept) == (["msg_1"], [])
    assert settled.webhook == replace(
        FAILING, failures=0, failing_since_ms=None, pause_until_ms=0, last_error="what it was"
    )


@pytest.mark.parametrize("outcome", [REFUSED, Outcome(302), Outcome(404), Outcome(error="no answer within 15 s")])
def test_anything_else_is_tried_again(outcome: Outcome) -> None:
    """Redirects and silence are failures like others: the message and the webhook wait."""
    settled = settle(HOOK, [(message(1), outcome)], NOW, 0)
    assert settled.done == []
    assert settled.kept == [message(1, attempts=1, since_ms=NOW, due_ms=NOW + FIRST_PAUSE_MS)]
    assert settled.webhook.is_enabled
    assert settled.webhook.failures == 1
    assert settled.webhook.failing_since_ms == NOW
    assert settled.webhook.pause_until_ms == NOW + FIRST_PAUSE_MS
    assert settled.webhook.last_error == outcome.text


def test_a_message_that_its_receiver_cannot_stand_stops_no_other() -> None:
    """Where others are accepted at the same time, only the message waits."""
    settled = settle(HOOK, [(message(1), REFUSED), (message(2), ACCEPTED)], NOW, 0)
    assert (settled.done, [kept.id for kept in settled.kept]) == (["msg_2"], ["msg_1"])
    assert settled.webhook.failures == 0


@pytest.mark.parametrize("asked", [7.0, 600.0, 1e9])
def test_a_receiver_may_ask_for_a_pause(asked: float) -> None:
    """Up to the longest that there is."""
    settled = settle(HOOK, [(message(1), Outcome(429, retry_after_seconds=asked))], NOW, 0)
    assert settled.webhook.pause_until_ms == NOW + min(int(asked * 1000), LONGEST_PAUSE_MS)


def test_410_disables_at_once_with_a_notice() -> None:
    """What waits stays, for the case that the owner enables it again."""
    settled = settle(HOOK, [(message(1), GONE)], NOW, 0)
    assert not settled.webhook.is_enabled
    assert "410" in settled.webhook.notices[-1].text
    assert [kept.id for kept in settled.kept] == ["msg_1"]
    assert plan(settled.webhook, settled.kept, NOW + RETRY_MS) == Plan()


@pytest.mark.parametrize(
    ("tries", "ms", "is_enabled"),
    [(LEAST_TRIES, RETRY_MS, False), (LEAST_TRIES, RETRY_MS - 1, True), (2, RETRY_MS, True)],
)
def test_a_day_of_failures_disables_with_a_notice(tries: int, ms: int, is_enabled: bool) -> None:
    """A day in which nobody has tried isn't one."""
    failing = replace(HOOK, failures=tries - 1, failing_since_ms=NOW - ms)
    settled = settle(failing, [(message(1), REFUSED)], NOW, 0)
    assert settled.webhook.is_enabled is is_enabled
    assert [notice.text[:9] for notice in settled.webhook.notices] == ([] if is_enabled else ["disabled:"])
    assert [kept.id for kept in settled.kept] == ["msg_1"]


def test_a_message_is_given_up_after_a_day_with_a_notice() -> None:
    """Its webhook goes on: it has accepted others."""
    old = message(1, attempts=LEAST_TRIES - 1, since_ms=NOW - RETRY_MS)
    settled = settle(HOOK, [(old, REFUSED), (message(2), ACCEPTED)], NOW, 0)
    assert sorted(settled.done) == ["msg_1", "msg_2"]
    assert settled.webhook.is_enabled
    assert "msg_1 was given up" in settled.webhook.notices[-1].text


def test_enabling_begins_anew() -> None:
    """Neither the webhook nor its messages are given up for what was before."""
    disabled = settle(HOOK, [(message(1), GONE)], NOW, 0)
    enabled = disabled.webhook.enabled(NOW + 1)
    assert plan(enabled, begun_anew(enabled, disabled.kept), NOW + 1) == Plan([message(1)])
    later = message(2, attempts=1, since_ms=NOW + 2, due_ms=NOW + 5000)
    assert begun_anew(enabled, [later]) == [later]


def test_one_message_too_many_disables_with_a_notice() -> None:
    """Nothing that waits is dropped, and the notice says from when on nothing is sent."""
    waiting = [message(number) for number in range(MAX_WAITING - 1)]
    webhook, taken = admit(HOOK, waiting, [message(MAX_WAITING), message(MAX_WAITING + 1), message(3)], NOW)
    assert [one.id for one in taken] == [f"msg_{MAX_WAITING}"]
    assert not webhook.is_enabled
    assert f"{MAX_WAITING} messages wait; job.ended of 2030" in webhook.notices[-1].text
    assert admit(webhook, taken, [message(1)], NOW) == (webhook, [])


def test_what_waits_already_is_not_queued_twice() -> None:
    """Facts come again after a reader was stopped; and one gap stands for all that nobody was told of."""
    gaps = [Message("msg_g1", GAP, NOW), Message("msg_g2", GAP, NOW)]
    assert admit(HOOK, [TRIED], [message(0), *gaps], NOW) == (HOOK, [gaps[0]])
    assert admit(HOOK, [replace(gaps[0], attempts=1)], gaps[1:], NOW) == (HOOK, gaps[1:])


outcomes = st.sampled_from([ACCEPTED, REFUSED, Outcome(error="away"), Outcome(503, retry_after_seconds=30)])


@given(st.lists(st.tuples(outcomes, st.floats(0, 1)), max_size=60), st.integers(0, 30))
def test_nothing_is_lost_whatever_receivers_answer(answers: list[tuple[Outcome, float]], count: int) -> None:
    """A message is done when it was accepted, or waits, or there is a notice about it; and waiting comes to an end."""
    webhook, now = HOOK, NOW
    waiting = {one.id: one for one in map(message, range(count))}
    accepted, queue = set[str](), list(answers)
    while waiting and webhook.is_enabled:
        planned = plan(webhook, waiting.values(), now)
        if not planned.messages:
            assert planned.wait_ms is not None
            assert 0 < planned.wait_ms <= LONGEST_PAUSE_MS
            now += planned.wait_ms
            continue
        assert len(planned.messages) == 1 or not webhook.failures
        outcome, jitter = queue.pop() if queue else (ACCEPTED, 0.0)
        settled = settle(webhook, [(one, outcome) for one in planned.messages], now, jitter)
        webhook, waiting = settled.webhook, waiting | {one.id: one for one in settled.kept}
        for done in settled.done:
            del waiting[done]
            accepted.add(done)
        now += 1
    given_up = {notice.text.split()[1] for notice in webhook.notices if "given up" in notice.text}
    assert accepted | given_up | waiting.keys() == {f"msg_{number}" for number in range(count)}
    assert webhook.is_enabled or webhook.notices


def test_a_receiver_that_never_answers_is_tried_for_a_day() -> None:
    """About a hundred tries, and the first twelve within the first hour and a half."""
    webhook, waiting, now, tries = HOOK, [message(1)], NOW, list[int]()
    while webhook.is_enabled:
        planned = plan(webhook, waiting, now)
        if not planned.messages:
            now += planned.wait_ms or 0
            continue
        tries.append(now - NOW)
        settled = settle(webhook, [(one, REFUSED) for one in planned.messages], now, 0.0)
        webhook, waiting = settled.webhook, list(settled.kept)
    assert RETRY_MS <= tries[-1] <= RETRY_MS + LONGEST_PAUSE_MS
    assert 90 <= len(tries) <= 200
    assert sum(at < 5_400_000 for at in tries) >= 10


@given(st.text(max_size=50), st.text(max_size=20))
def test_the_foreign_verifier_accepts_each_and_refuses_a_changed_one(text: str, status: str) -> None:
    """Signed with either secret while one takes the other's place; whatever a job's name has in it."""
    sent = Message("msg_w_0-1-0-1", "job.ended", NOW, "job", status)
    body, now = sent.body({"name": text}), int(utc_now().timestamp())
    rotated = HOOK.rotated(now * 1000)
    headers = signed(sent.id, body, rotated.keys_at(now * 1000), now)
    for secret in rotated.secrets:
        data = ForeignVerifier(secret.text).verify(body, headers)
        assert data == json.loads(body)
        for changed in (body.replace(b"job", b"jab"), body + b" "):
            with pytest.raises(WebhookVerificationError):
                ForeignVerifier(secret.text).verify(changed, headers)
        with pytest.raises(WebhookVerificationError):
            ForeignVerifier(secret.text).verify(body, {**headers, "webhook-id": "msg_other"})
    with pytest.raises(WebhookVerificationError):
        ForeignVerifier(Secret.new().text).verify(body, headers)


def test_an_old_secret_signs_for_a_day() -> None:
    """And no more than two there are, however often it is rotated."""
    rotated = HOOK.rotated(NOW)
    assert rotated.keys_at(NOW + RETRY_MS - 1) == [rotated.secrets[0].key, SECRET.key]
    assert rotated.keys_at(NOW + RETRY_MS) == [rotated.secrets[0].key]
    assert SECRET not in rotated.rotated(NOW).secrets


messages = st.builds(
    Message, st.just("msg_1"), st.text(), st.integers(0), st.none() | st.text(), st.none() | st.text(), st.integers(0)
)


@given(messages)
def test_a_message_comes_back_from_the_store_as_it_was(one: Message) -> None:
    """Ids may have anything in them."""
    assert Message.from_text(one.id, one.to_text()) == one


@pytest.mark.parametrize("text", ["", "[]", "{", "[1,2,3,4,5,6,7,8,9,10]", "7"])
def test_a_damaged_message_is_named(text: str) -> None:
    """Nothing is made of what nobody wrote."""
    with pytest.raises(StoreFormatError, match="msg_1"):
        Message.from_text("msg_1", text)
