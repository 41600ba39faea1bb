"""The sender's side of the store: the lease by which one process sends, queues, and what has become of webhooks."""

import logging
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.caller import new_token
from ci_eventstore.keys import Keys, account_key
from ci_eventstore.webhooks.delivery import Message
from ci_eventstore.webhooks.webhook import Webhook

logger = logging.getLogger("ci_eventstore.webhooks")

#: For how long a process sends unless it says so again, which it does every two seconds in any case.
LEASE_SECONDS = 6.0
LONGEST_LEASE_MS = 60_000
#: Messages that are written by one script.
WRITE_MESSAGES = 500


class HoldCall(NamedTuple):
    """What `hold_sender.lua` is called with."""

    sender: Key
    token: str
    lease_ms: int


class MessageText(NamedTuple):
    """A message of a queue; without a text, it is to go."""

    id: str
    text: str


class WriteCall(NamedTuple):
    """What `write_outbox.lua` is called with."""

    sender: Key
    webhooks: Key
    queue: Key
    token: str
    id: str
    expected: str
    record: str
    messages: Sequence[MessageText]


HOLD = load_script(__package__, "hold_sender", {"LONGEST_LEASE_MS": LONGEST_LEASE_MS}, call=HoldCall)
WRITE = load_script(__package__, "write_outbox", call=WriteCall)


class SenderReplacedError(Exception):
    """Raised when another process sends by now: this one has nothing to say any more."""


class Outbox:
    """What one process writes while it sends."""

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self._nodes = nodes
        self._keys = keys
        self._token = new_token()
        #: The server's time and the monotonic one when the lease was last renewed.
        self._server_ms = 0
        self._renewed_at = 0.0
        #: What stands in the store of each webhook, as far as this process knows.
        self._texts: dict[str, str] = {}

    @property
    def now_ms(self) -> int:
        """The store's time."""
        return self._server_ms + int((time.monotonic() - self._renewed_at) * 1000)

    @property
    def is_mine(self) -> bool:
        """Whether no other process can have begun to send, by this machine's clock."""
        return time.monotonic() - self._renewed_at < LEASE_SECONDS

    async def hold(self) -> int | None:
        """Be the one who sends for a while; return how often owners have changed webhooks, None if another one is."""
        asked_at = time.monotonic()
        is_mine, server_ms, changes = await self._hold(LEASE_SECONDS)
        if not is_mine:
            return None
        self._server_ms, self._renewed_at = int(server_ms), asked_at
        return int(changes)

    async def release(self) -> None:
        """Let another process begin at once."""
        self._renewed_at = 0.0
        await self._hold(0)

    async def _hold(self, lease_seconds: float) -> tuple[int, bytes, bytes]:
        call = HoldCall(account_key(self._keys, "webhook-sender"), self._token, int(lease_seconds * 1000))
        is_mine, server_ms, changes = await self._nodes.run(HOLD, *HOLD.order(call))
        return is_mine, server_ms, changes

    async def webhooks(self) -> dict[str, Webhook]:
        """Return all webhooks that can be read, by id."""
        words = as_texts(await self._nodes.read("HGETALL", account_key(self._keys, "webhooks")))
        self._texts = dict(zip(words[::2], words[1::2], strict=True))
        found = {}
        for webhook_id, text in self._texts.items():
            try:
                found[webhook_id] = Webhook.from_text(text)
            except StoreFormatError as error:
                logger.warning("nothing is sent for webhook %s: %s", webhook_id, error)
        return found

    async def messages(self, webhook_id: str) -> dict[str, Message]:
        """Return what waits for a webhook, by id."""
        found = {}
        async for words in self._nodes.scan_members("HSCAN", account_key(self._keys, "webhook-queue", webhook_id)):
            for message_id, text in zip(words[::2], words[1::2], strict=True):
                try:
                    found[message_id] = Message.from_text(message_id, text)
                except StoreFormatError as error:
                    logger.warning("left in the queue of webhook %s: %s", webhook_id, error)
        return found

    async def write(self, webhook: Webhook, kept: Iterable[Message] = (), done: Iterable[str] = ()) -> bool:
        """Write what waits now, and what doesn't; False if an owner has changed the webhook: decide again.

        SenderReplacedError, StoreError: then some of it may have been written.
        """
        texts = [MessageText(message.id, message.to_text()) for message in kept]
        texts += [MessageText(message_id, "") for message_id in done]
        expected, record = self._texts.get(webhook.id, ""), webhook.to_text()
        while True:
            some, texts = texts[:WRITE_MESSAGES], texts[WRITE_MESSAGES:]
            # The webhook changes with the last of them.
            call = WriteCall(
                *(
                    account_key(self._keys, "webhook-sender"),
                    account_key(self._keys, "webhooks"),
                    account_key(self._keys, "webhook-queue", webhook.id),
                ),
                token=self._token,
                id=webhook.id,
                expected=expected,
                record=expected if texts else record,
                messages=some,
            )
            reply = await self._nodes.run(WRITE, *WRITE.order(call))
            if reply == b"lost":
                raise SenderReplacedError
            if reply != b"ok":
                return False
            if not texts:
                self._texts[webhook.id] = record
                return True
