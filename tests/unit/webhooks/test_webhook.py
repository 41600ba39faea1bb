"""Webhooks as they stand in the store, and what may be asked for."""

import json
from dataclasses import replace

import pytest

from ci_common.errors import InvalidArgumentError
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.webhooks.webhook import (
    DEFAULT_EVENTS,
    EVENTS,
    MAX_NOTICES,
    MOST_TESTS,
    Notice,
    Secret,
    Webhook,
    checked_events,
    checked_url,
    visible_to,
)

HOOK = Webhook(
    id="w",
    url="https://a.example/",
    user_id="ada",
    events=DEFAULT_EVENTS,
    created_ms=1_900_000_000_000,
    enabled_ms=1,
    secrets=(Secret("whsec_AAAA"), Secret("whsec_BBBB", 5)),
    notices=(Notice(7, "something"),),
)


def test_a_webhook_comes_back_from_the_store_as_it_was() -> None:
    """Also one that a later program has added something to."""
    assert Webhook.from_text(HOOK.to_text()) == HOOK
    assert Webhook.from_text(json.dumps({**json.loads(HOOK.to_text()), "later": 1})) == HOOK


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", HOOK.to_text()[:-2], replace(HOOK, secrets=()).to_text()])
def test_a_damaged_webhook_is_named(text: str) -> None:
    """Nothing is made of what nobody wrote."""
    with pytest.raises(StoreFormatError, match="webhook can't be read"):
        Webhook.from_text(text)


def test_its_owner_sees_no_secret() -> None:
    """What is shown has none of what signs."""
    shown = json.dumps(HOOK.to_json(3))
    assert "whsec" not in shown
    assert "AAAA" not in shown
    assert json.loads(shown)["created_at"] == "2030-03-17T17:46:40Z"


def test_notices_are_few_and_say_a_thing_once() -> None:
    """The newest are kept."""
    hook = HOOK
    for number in range(30):
        hook = hook.noticed(number, f"notice {number // 2}")
    assert [notice.text for notice in hook.notices] == [f"notice {number}" for number in range(5, 15)]
    assert len(hook.notices) == MAX_NOTICES


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example",
        "http://127.0.0.1:8080/hook?x=1&y=%20",
        "https://Hooks.a.example:65535/~x/[y]",
        "https://xn--bcher-kva.example/a",
        "https://[2606:4700::1111]:8443/hook",
        "http://[::ffff:10.1.2.3]/",
        "https://[::1]/",
    ],
)
def test_addresses(url: str) -> None:
    """Whether they may be reached is asked when they are."""
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "a.example",
            "ftp://a.example/",
            "https://",
            "https:///path",
            "https://a.example:0/",
            "https://a.example:x/",
        ),
        *(
            "https://ada:secret@a.example/",
            "https://a.example/#part",
            "https://a.example/a b",
            "https://a.example/\r\nx: y",
        ),
        *("https://bücher.example/", "https://a.example\\@b.example/", "https://a..example/", "https://[::1/"),
        *(
            "https://[fe80::1%25eth0]/",
            "https://[127.0.0.1]/",
            "https://[::1]x/",
            "https://[1::2::3]/",
            "https://[v1.x]/",
        ),
        *("https://[:]/", "https://[::ffff:1.2.3]/", "https://::1/", "https://ada@[::1]/", "https://[::1]:0/"),
        *("https://a.example?x", "https://-a.example/", "https://a_b.example/", "https://a.example:65536/"),
        *("https://a.example:99999/", "https://a.example/" + "x" * 2048, f"https://{'a' * 64}.example/", 7),
    ],
)
def test_what_is_no_address(url: str) -> None:
    """Nothing is stored that could be read in two ways, and no password is in the message."""
    with pytest.raises(InvalidArgumentError, match="url") as refused:
        checked_url(url)
    assert "secret" not in str(refused.value)


def test_few_tests_wait_for_a_sender() -> None:
    """However often they are asked for: their receiver may be anybody."""
    hook = HOOK
    for _ in range(100):
        hook = hook.tested()
    assert hook.tests == MOST_TESTS
    assert replace(hook, tests_queued=hook.tests).tested().tests == MOST_TESTS + 1


def test_events() -> None:
    """Each once and in order; changes of the status if nothing is asked for."""
    assert checked_events(["job.ended", "job.created", "job.ended"]) == ("job.created", "job.ended")
    assert checked_events([]) == DEFAULT_EVENTS
    assert checked_events(EVENTS) == EVENTS
    with pytest.raises(InvalidArgumentError, match=r"job\.finished"):
        checked_events(["job.finished"])


def test_users_see_their_own() -> None:
    """The operator sees all."""
    hooks = [HOOK, replace(HOOK, id="x", user_id=None, created_ms=1), replace(HOOK, id="y", user_id="bob")]
    assert [hook.id for hook in visible_to(hooks, "ada")] == ["w"]
    assert [hook.id for hook in visible_to(hooks, None)] == ["x", "w", "y"]
