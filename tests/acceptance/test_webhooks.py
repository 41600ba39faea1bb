"""`ci-eventstore webhook`: what happens to jobs is sent, by `webhook send` and by `serve`."""

import json
import re
import signal
from collections.abc import Callable, Iterator

import pytest
from anyio.from_thread import start_blocking_portal

from tests import receivers
from tests.acceptance.command_line import CommandLine, Ended
from tests.receivers import Receiver
from tests.servers import wait_until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver in a thread."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(receivers.receiver()) as opened:
        yield opened


def types_of(receiver: Receiver, secret: str) -> list[str]:
    """Return the types of all messages."""
    return [one.verified(secret)["type"] for one in receiver.received]


def created(ended: Ended) -> tuple[str, str]:
    """Return a new webhook's id and secret."""
    found = re.search(r"the secret of webhook (\w+); keep it", ended.err)
    assert found, ended
    return found[1], ended.text.strip()


@pytest.mark.slow  # Several processes of the program.
def test_webhooks_are_sent(cli: CommandLine, here: Callable[..., Ended], receiver: Receiver) -> None:
    """By whoever is there: also what happened while nobody was; and the list shows how it goes."""
    assert here("webhook", "list").err == "ci-eventstore: there are no such webhooks\n"
    webhook_id, secret = created(here("webhook", "create", receiver.url, "--webhook-allow", "127.0.0.1"))
    cli("run", "--id", "job-1", "--", "true")
    [shown] = json.loads(here("webhook", "list", "--json").out)
    assert (shown["id"], shown["waiting"], shown["user_id"]) == (webhook_id, 0, None)
    sender = cli.start("webhook", "send", "--webhook-allow", "127.0.0.1")
    wait_until(lambda: len(receiver.received) >= 3, "three messages")
    assert sorted(types_of(receiver, secret)) == ["job.created", "job.ended", "job.started"]
    rotated = here("webhook", "rotate", webhook_id).text.strip()
    assert here("webhook", "test", webhook_id).code == 0
    wait_until(lambda: len(receiver.received) >= 4, "the test message")
    assert types_of(receiver, secret)[-1] == "webhook.test"
    assert receiver.received[-1].verified(rotated)
    sender.send(signal.SIGTERM)
    assert sender.end().code == 0
    server = cli.start("serve", "--port", "0", "--no-auth", "--webhook-allow", "127.0.0.0/8")
    server.wait_for_error("serving on http://")
    cli("run", "--id", "job-2", "--", "false")
    wait_until(lambda: len(receiver.received) >= 7, "three more")
    server.send(signal.SIGTERM)
    server.end()
    assert here("webhook", "enable", webhook_id).text == f"webhook {webhook_id} is enabled\n"
    lines = here("webhook", "list").text.splitlines()
    assert lines[0].split() == ["ID", "USER", "STATE", "WAITING", "EVENTS", "URL"]
    assert lines[1].split() == [webhook_id, "-", "enabled", "0", "created,started,requeued,ended", receiver.url]
    assert here("webhook", "delete", webhook_id).text == f"webhook {webhook_id} is deleted\n"
    assert here("webhook", "delete", webhook_id).code == 3


def test_a_webhook_for_a_user(here: Callable[..., Ended]) -> None:
    """Named by id or email; what can't be is refused before anything is stored."""
    here("user", "create", "Ada", "ada@example.com", "--id", "ada")
    made = here(
        *("webhook", "create", "https://a.example/", "--user", "ada@example.com", "--event", "job.ended", "--json")
    )
    shown = json.loads(made.out)
    assert (shown["user_id"], shown["events"]) == ("ada", ["job.ended"])
    assert shown["secret"].startswith("whsec_")
    listed = json.loads(here("webhook", "list", "--user", "ada", "--json").out)
    assert [one["id"] for one in listed] == [shown["id"]]
    for refused, code in (
        (("create", "ftp://a.example/"), 2),
        (("create", "http://127.0.0.1/x"), 2),
        (("create", "https://a.example/", "--event", "job.finished"), 2),
        (("create", "https://a.example/", "--user", "nobody"), 3),
        (("rotate", "none"), 3),
        (("send", "--webhook-allow", "10.0.0.1/8"), 2),
    ):
        assert here("webhook", *refused).code == code, refused
    assert len(json.loads(here("webhook", "list", "--json").out)) == 1
    here("user", "erase", "ada", "--settle", "0s")
    assert here("webhook", "list", "--json").out.strip() == b"[]"
