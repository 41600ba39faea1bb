"""`ci-eventstore facts`: what happens to jobs, at the command line."""

import json
import signal
from collections.abc import Callable

from tests.acceptance.command_line import CommandLine, Ended


def test_facts_are_shown_once(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """A group begins with a gap; it is shown what happens, and what happened while nobody read; then it is dropped."""
    assert here("facts", "groups").err == "ci-eventstore: there are no groups yet\n"
    reader = cli.start("facts", "tail", "--group", "g")
    reader.wait_for_error("gap: earlier facts of partition 0")
    cli("run", "--id", "job-1", "--", "true")
    reader.wait_for_output(b"ended       completed job-1\n")
    reader.send(signal.SIGINT)
    lines = [line.split() for line in reader.end().text.splitlines()]
    assert [line[1:] for line in lines] == [
        ["created", "running", "job-1"], ["started", "running", "job-1"], ["ended", "completed", "job-1"]
    ]  # fmt: skip
    cli("run", "--id", "job-2", "--", "false")
    again = cli.start("facts", "tail", "--group", "g", "--json")
    again.wait_for_output(b'"ended"')
    again.send(signal.SIGINT)
    told = [json.loads(line) for line in again.end().text.splitlines()]
    assert [(one["fact"], one["status"], one["job_id"]) for one in told] == [
        ("created", "running", "job-2"), ("started", "running", "job-2"), ("ended", "completed", "job-2")
    ]  # fmt: skip
    shown = here("facts", "groups")
    assert shown.text.splitlines()[0].split() == ["GROUP", "LIVE", "READING", "BEHIND", "LOOKED"]
    assert shown.text.splitlines()[1].split()[:4] == ["g", "yes", "0/1", "0s"]
    [group] = json.loads(here("facts", "groups", "--json").out)
    assert (group["name"], group["is_live"], group["read_now"]) == ("g", True, 0)
    assert here("facts", "drop", "g").err == "ci-eventstore: the group g is dropped\n"
    missing = here("facts", "drop", "g")
    assert (missing.code, missing.err) == (1, "ci-eventstore: there is no group g\n")
