"""`ci-eventstore user` and `key`."""

import json
import re
from collections.abc import Callable

from ci_common import hash_api_key
from tests.acceptance.command_line import CommandLine, Ended


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table, without its title."""
    return [re.split(r" {2,}", line) for line in text.splitlines()[1:]]


def test_users_are_created_and_listed(here: Callable[..., Ended]) -> None:
    """`create` prints the id, a given one or a random one."""
    assert here("user", "create", "Ada Lovelace", "ada@example.com", "--id", "ada").text == "ada\n"
    grace = json.loads(here("user", "create", "Grace", "grace@example.com", "--json").out)
    assert re.fullmatch("[0-9a-f]{16}", grace["id"])
    listed = rows(here("user", "list").text)
    assert [row[:4] for row in listed] == [
        ["ada", "Ada Lovelace", "ada@example.com", "yes"],
        [grace["id"], "Grace", "grace@example.com", "yes"],
    ]
    assert json.loads(here("user", "list", "--json").out)[1] == grace


def test_an_email_is_given_once(here: Callable[..., Ended]) -> None:
    """A second user with the same email, whatever its case, is refused."""
    here("user", "create", "Ada", "ada@example.com")
    done = here("user", "create", "Other", "ADA@example.com")
    message = "ci-eventstore: there is a user with the email 'ADA@example.com' already\n"
    assert (done.code, done.out, done.err) == (2, b"", message)
    assert len(json.loads(here("user", "list", "--json").out)) == 1


def test_a_user_is_deactivated_and_activated(here: Callable[..., Ended]) -> None:
    """By id or by email."""
    here("user", "create", "Ada", "ada@example.com", "--id", "ada")
    assert here("user", "deactivate", "Ada@Example.com").text == "user ada (ada@example.com) is inactive\n"
    assert rows(here("user", "list").text)[0][3] == "no"
    assert here("user", "activate", "ada").text == "user ada (ada@example.com) is active\n"
    assert rows(here("user", "list").text)[0][3] == "yes"


async def test_a_key_is_shown_once(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """`create` prints the key alone, the store keeps its hash, and no list shows either."""
    here("user", "create", "Ada", "ada@example.com", "--id", "ada")
    done = here("key", "create", "ada@example.com", "--name", "laptop")
    key = done.text.strip()
    assert re.fullmatch(r"ci_[A-Za-z0-9_-]{40}", key)
    assert "it can't be shown again" in done.err
    async with cli.repository() as repository:
        stored = await repository.get_api_key_by_hash(hash_api_key(key))
    assert stored is not None
    for listed in (here("key", "list").text, here("key", "list", "--json").text):
        assert stored.id in listed
        assert key not in listed
        assert stored.key_hash not in listed


def test_keys_are_listed_and_revoked(here: Callable[..., Ended]) -> None:
    """Of all users or of one; a revoked key stays in the list."""
    for user in ("ada", "grace"):
        here("user", "create", user, f"{user}@example.com", "--id", user)
    keys = {user: json.loads(here("key", "create", user, "--json").out) for user in ("ada", "grace")}
    assert keys["ada"]["key"].startswith("ci_")
    assert here("key", "revoke", keys["ada"]["id"]).text == f"key {keys['ada']['id']} is revoked\n"
    assert [(row[0], row[3]) for row in rows(here("key", "list").text)] == [
        (keys["ada"]["id"], "no"),
        (keys["grace"]["id"], "yes"),
    ]
    assert [row[1] for row in rows(here("key", "list", "--user", "GRACE@example.com").text)] == ["grace"]


def test_empty_lists_say_so(here: Callable[..., Ended]) -> None:
    """A person is told on standard error."""
    assert here("user", "list").err == "ci-eventstore: there are no users yet\n"
    assert here("key", "list").err == "ci-eventstore: there are no such keys\n"
