"""`ci-eventstore jobs delete`."""

from collections.abc import Callable

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
