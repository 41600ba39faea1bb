"""`ci-eventstore jobs delete` and `jobs delete-log`."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, Ended


def test_a_job_is_deleted(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """Whoever asks for it afterwards is told; one that waits has to be cancelled first."""
    cli("run", "--id", "job-1", "--", "true")
    deleted = here("jobs", "delete", "job-1")
    assert (deleted.code, deleted.text) == (0, "job job-1 is deleted\n")
    assert here("jobs", "delete", "job-1").text == "job job-1 was deleted before\n"
    shown = here("jobs", "show", "job-1")
    assert (shown.code, shown.err) == (3, "ci-eventstore: job 'job-1' was deleted\n")
    assert here("tail", "job-1").code == 3
    assert here("jobs", "delete", "job-2").code == 3
    here("submit", "--id", "job-2", "--", "true")
    refused = here("jobs", "delete", "job-2")
    assert (refused.code, "cancel it first" in refused.err) == (2, True)
    assert here("verify").code == 0


def test_a_log_is_deleted(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """The job stays; who asks for its log is told."""
    here("submit", "--id", "job-2", "--", "true")
    refused = here("jobs", "delete-log", "job-2")
    assert (refused.code, "cancel it first" in refused.err) == (2, True)
    cli("run", "--id", "job-1", "--", "echo", "secret")
    assert here("jobs", "delete-log", "job-1").text == "the log of job job-1 is deleted\n"
    assert here("jobs", "delete-log", "job-1").text == "the log of job job-1 was deleted before\n"
    assert "it was deleted" in here("jobs", "show", "job-1").text
    for command in (("tail", "job-1"), ("tail", "job-1", "--no-follow"), ("replay", "job-1")):
        told = here(*command)
        assert (told.code, told.text) == (3, "")
        assert "the log of job 'job-1' was deleted" in told.err


def test_old_jobs_are_deleted(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """A dry run prints what would go; a job goes only when it is sealed, or by --unsealed."""
    for job_id in ("job-1", "job-2"):
        cli("run", "--id", job_id, "--", "true")
    assert here("retention").code == 2
    assert here("retention", "--older-than", "1h").err == "ci-eventstore: deleted 0 jobs\n"
    assert here("retention", "--older-than", "0s").err == "ci-eventstore: deleted 0 jobs\n"
    planned = here("retention", "--older-than", "0s", "--unsealed", "--dry-run")
    assert (sorted(planned.text.split()), planned.err) == (["job-1", "job-2"], "ci-eventstore: would delete 2 jobs\n")
    assert here("retention", "--older-than", "0s", "--unsealed", "--status", "failed").code == 0
    assert here("jobs", "show", "job-1").code == 0
    assert here("jobs", "keep", "job-1").text == "job job-1 is kept\n"
    assert "retention leaves it alone" in here("jobs", "show", "job-1").text
    assert here("retention", "--older-than", "0s", "--unsealed", "--dry-run").text == "job-2\n"
    assert here("jobs", "keep", "job-1", "--unkeep").text == "job job-1 is no longer kept\n"
    deleted = here("retention", "--older-than", "0s", "--unsealed")
    assert (deleted.code, deleted.err) == (0, "ci-eventstore: deleted 2 jobs\n")
    assert here("retention", "--older-than", "0s", "--tombstones", "0s").err == (
        "ci-eventstore: deleted 0 jobs, forgot 2 that were deleted before\n"
    )
    assert here("retention", "--older-than", "9999999d").code == 2
    assert here("verify").code == 0


@pytest.mark.slow
def test_the_store_keeps_rules(cli: CommandLine, here: Callable[..., Ended], tmp_path: Path) -> None:
    """Slow, as it calls the program often: `jobs show` says what they will do, and `retention` does it."""
    for job_id in ("job-1", "job-2"):
        cli("run", "--id", job_id, "--", "true")
    assert here("rules", "show").err == "ci-eventstore: the store keeps no rules\n"
    assert here("retention", "--unsealed").code == 2
    assert json.loads(here("jobs", "show", "job-1", "--json").out)["retention"] is None
    file = tmp_path / "retention.toml"
    file.write_text("[[rules]]\nmax-size = '5GB'\n")
    wrong = here("rules", "set", str(file))
    assert (wrong.code, "rule 1: max-size: '5GB' is no size" in wrong.err) == (2, True)
    file.write_text("[[rules]]\nmax-size = '2KiB'\nunsealed = true\n")
    assert here("rules", "set", str(file)).err == "ci-eventstore: the store keeps 1 rule\n"
    assert here("rules", "show").text == '{"rules": [{"max-size": "2KiB", "unsealed": true}]}\n'
    assert "deleted when newer jobs of the rule have 2KiB, by rule 1" in here("jobs", "show", "job-1").text
    assert here("retention", "--dry-run").text == ""
    assert here("retention", "--max-size", "1KiB", "--unsealed", "--dry-run").text == "job-1\n"
    file.write_text("[[rules]]\nmax-size = '1KiB'\nunsealed = true\n")
    assert here("retention", "--rules", str(file), "--dry-run").text == "job-1\n"
    assert here("retention", "--rules", str(file), "--unsealed").code == 2
    file.write_bytes(b"\xff")
    assert here("retention", "--rules", str(file)).code == 2
    asyncio.run(_keep_rules_of_a_later_version(cli))
    assert "not known: the rules in the store: rule 1: colour:" in here("jobs", "show", "job-1").text
    assert here("retention").code == 2
    assert here("rules", "drop").err == "ci-eventstore: the store keeps no rules\n"
    assert here("retention").code == 2


def test_a_user_is_erased(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """With their jobs and keys; the receipt counts these, and says what may be left elsewhere."""
    cli("user", "create", "Ada", "ada@example.com", "--id", "ada")
    cli("key", "create", "ada")
    cli("run", "--user", "ada", "--id", "job-1", "--", "true")
    here("submit", "--user", "ada", "--id", "job-2", "--", "true")
    erased = here("user", "erase", "Ada@example.com", "--settle", "0s", "--rewrite")
    assert erased.code == 0
    counts = dict(line.rsplit(maxsplit=1) for line in erased.text.splitlines())
    expected = {"jobs": "2", "cancelled": "1", "accounts": "1", "api keys": "1", "sessions": "0", "rewritten": "1"}
    assert counts == {**expected, "projects": "0", "projects left": "0", "webhooks": "0"}
    assert (
        "what may be left of the user: files of replicas, backups, exports, copies, and old versions in a b"
        in erased.err
    )
    assert here("jobs", "show", "job-1").code == 3
    assert here("key", "list").text == ""
    again = here("user", "erase", "ada", "--settle", "0s", "--rewrite")
    assert (again.code, again.err) == (3, "ci-eventstore: there is no user 'ada'\n")
    assert here("verify").code == 0


def test_a_user_is_not_erased_while_jobs_run(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """Without --cancel; with it, they are cancelled first."""
    cli("user", "create", "Ada", "ada@example.com", "--id", "ada")
    running = cli.start("run", "--user", "ada", "--id", "job-1", "--", "sh", "-c", "echo begun; sleep 600")
    running.wait_for_output(b"begun\n")
    refused = here("user", "erase", "ada", "--settle", "0s")
    assert (refused.code, "jobs of user 'ada' run: job-1" in refused.err) == (2, True)
    erased = here("user", "erase", "ada", "--settle", "0s", "--cancel", "--json")
    receipt = json.loads(erased.text)
    assert (erased.code, receipt["cancelled"], receipt["left"]) == (0, 1, {})
    # Without --rewrite.
    assert receipt["remains"][0] == "the server's append-only file and snapshot, until they are written anew"
    assert receipt["remains"][1] == "files of replicas, backups, exports, copies, and old versions in a bucket"
    assert running.end().code != 0


async def _keep_rules_of_a_later_version(cli: CommandLine) -> None:
    async with cli.repository() as repository:
        rules = '{"rules": [{"colour": "red"}]}'
        await repository.engine.nodes.read("HSET", repository.engine.keys.store, "retention", rules)
