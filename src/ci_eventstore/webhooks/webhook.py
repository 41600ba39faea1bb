"""A webhook: where to send which events of whose jobs, and how sending has gone. Pure.

It stands in the store as one text of JSON, which is changed as a whole.
"""

import json
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from ci_common.errors import InvalidArgumentError
from ci_common.models import to_rfc3339
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.facts.facts import FactKind
from ci_eventstore.webhooks.addresses import literal_in

TEST, GAP = "webhook.test", "webhook.gap"
#: What a webhook may ask for. It gets `webhook.test` and `webhook.gap` in any case.
EVENTS = tuple(f"job.{kind.name.lower()}" for kind in FactKind)
#: What it gets if it asks for nothing: each change of a job's status.
DEFAULT_EVENTS = ("job.created", "job.started", "job.requeued", "job.ended")
MAX_URL_LENGTH = 2048
#: For how long messages are signed with the old secret, too, after another one has come.
ROTATION_MS = 86_400_000
#: The newest are kept.
MAX_NOTICES = 10
#: So many test messages are asked for at a time: users choose to whom they go.
MOST_TESTS = 10
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_NUMBERS = "\\[[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,40}\\]"
#: A name or an address, and a path of visible ASCII: neither user, zone nor fragment, nothing that is read in two ways.
URL_PATTERN = rf"^https?://({_LABEL}(\.{_LABEL})*|{_NUMBERS})(:{_PORT})?(/[!\"$-\[\]-~]*)?$"


@dataclass(frozen=True, slots=True)
class Secret:
    """What messages are signed with."""

    #: `whsec_` and 32 bytes as base64.
    text: str
    #: The time, in milliseconds since 1970, after which it signs no more; None: it is the one that stays.
    until_ms: int | None = None

    @classmethod
    def new(cls) -> "Secret":
        """Return a random secret."""
        return cls(f"whsec_{b64encode(secrets.token_bytes(32)).decode()}")

    @property
    def key(self) -> bytes:
        """The bytes that sign."""
        return b64decode(self.text.removeprefix("whsec_"))


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the webhook's owner has to know."""

    at_ms: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook; its times are in milliseconds since 1970, by the store's clock."""

    id: str
    url: str
    #: Whose jobs it is about; None: it is the operator's, and about all jobs.
    user_id: str | None
    events: tuple[str, ...]
    created_ms: int
    secrets: tuple[Secret, ...]
    enabled_ms: int
    #: Random, another one after each change of its owner's: so two equal ones aren't taken for a repeated one.
    revision: str = ""
    #: None: it is enabled.
    disabled_ms: int | None = None
    #: How many test messages were asked for, and how many of them are queued by now.
    tests: int = 0
    tests_queued: int = 0
    #: How many tries have failed since one was successful, since when, and when to try again.
    failures: int = 0
    failing_since_ms: int | None = None
    pause_until_ms: int = 0
    last_error: str | None = None
    notices: tuple[Notice, ...] = ()

    @property
    def is_enabled(self) -> bool:
        """Whether messages are queued and sent."""
        return self.disabled_ms is None

    def wants(self, event: str) -> bool:
        """Tell whether it asked for events of that type."""
        return event in self.events or event in (TEST, GAP)

    def noticed(self, now_ms: int, text: str) -> "Webhook":
        """Return it with a notice, instead of one that says the same."""
        others = tuple(notice for notice in self.notices if notice.text != text)
        return replace(self, notices=(*others, Notice(now_ms, text))[-MAX_NOTICES:])

    def disabled(self, now_ms: int, why: str) -> "Webhook":
        """Return it disabled, with a notice."""
        return replace(self.noticed(now_ms, f"disabled: {why}"), disabled_ms=now_ms)

    def enabled(self, now_ms: int) -> "Webhook":
        """Return it enabled, as if sending had never failed; what waits is tried at once."""
        return replace(self, enabled_ms=now_ms, disabled_ms=None, failures=0, failing_since_ms=None, pause_until_ms=0)

    def rotated(self, now_ms: int) -> "Webhook":
        """Return it with a new secret; the one before goes on to sign for a day."""
        old = replace(self.secrets[0], until_ms=now_ms + ROTATION_MS)
        return replace(self, secrets=(Secret.new(), old))

    def tested(self) -> "Webhook":
        """Return it with one more test message to send, unless several wait for a sender."""
        return replace(self, tests=min(self.tests + 1, self.tests_queued + MOST_TESTS))

    def keys_at(self, now_ms: int) -> list[bytes]:
        """Return what signs at a time: the newest secret, and one that was rotated out lately."""
        return [secret.key for secret in self.secrets if secret.until_ms is None or now_ms < secret.until_ms]

    def to_text(self) -> str:
        """Return what stands in the store."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> "Webhook":
        """Return the webhook that stands in the store; StoreFormatError."""
        try:
            found = json.loads(text)
            known = {field.name: found[field.name] for field in fields(cls) if field.name in found}
            known["events"] = tuple(known["events"])
            known["secrets"] = tuple(Secret(**secret) for secret in known["secrets"])
            known["notices"] = tuple(Notice(**notice) for notice in known.get("notices", ()))
            webhook = cls(**known)
            if not webhook.keys_at(webhook.created_ms):
                raise ValueError("it has no secret")
        except (ValueError, TypeError, KeyError) as error:
            raise StoreFormatError(f"a webhook can't be read: {error}") from error
        return webhook

    def to_json(self, waiting: int) -> dict[str, Any]:
        """Return it as its owner sees it: without secrets, with the number of messages that wait."""
        return {
            "id": self.id,
            "url": self.url,
            "user_id": self.user_id,
            "events": list(self.events),
            "created_at": time_text(self.created_ms),
            "disabled_at": time_text(self.disabled_ms),
            "failing_since": time_text(self.failing_since_ms),
            "failures": self.failures,
            "last_error": self.last_error,
            "waiting": waiting,
            "notices": [{"at": time_text(notice.at_ms), "text": notice.text} for notice in self.notices],
        }


def time_text(milliseconds: int | None) -> str | None:
    """Return a time as JSON has it."""
    return None if milliseconds is None else to_rfc3339(datetime.fromtimestamp(milliseconds / 1000, UTC))


def checked_events(events: Iterable[str]) -> tuple[str, ...]:
    """Return types of events, each once, in their order here; InvalidArgumentError."""
    asked = list(events)
    for event in asked:
        if event not in EVENTS:
            raise InvalidArgumentError("event", event, f"one of {', '.join(EVENTS)}")
    return tuple(event for event in EVENTS if event in asked) or DEFAULT_EVENTS


def checked_url(url: str) -> str:
    """Return an address that messages may be sent to as far as its text says; InvalidArgumentError."""
    found = re.fullmatch(URL_PATTERN[1:-1], url) if isinstance(url, str) and len(url) <= MAX_URL_LENGTH else None
    if not found or ("[" in found[1] and literal_in(found[1].strip("[]")) is None):
        # A user's password is nobody's to read, in no message.
        shown = re.sub("//[^/]*@", "//***@", url) if isinstance(url, str) else url
        raise InvalidArgumentError(
            "url", shown, "https://HOST[:PORT][/PATH] of visible ASCII, without user and fragment"
        )
    return url


def visible_to(webhooks: Sequence[Webhook], user_id: str | None) -> list[Webhook]:
    """Return those that a caller may see, the oldest first; None sees all."""
    seen = [webhook for webhook in webhooks if user_id in (None, webhook.user_id)]
    return sorted(seen, key=lambda webhook: (webhook.created_ms, webhook.id))
