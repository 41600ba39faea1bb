"""`ci-eventstore seal`, `jobs segment`, `verify-archive`, `archive sweep`, `jobs archive` and `jobs unarchive`."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, Ended
from tests.servers import wait_until


def test_a_log_is_sealed_written_and_proven(cli: CommandLine, here: Callable[..., Ended], tmp_path: Path) -> None:
    """It reads as before; `jobs show` has the root by which anyone proves the file, and tells one that was altered."""
    cli("run", "--id", "job-1", "--", "printf", "hello\\nworld\\n")
    assert here("jobs", "segment", "job-1").code == 4
    before = here("tail", "job-1").out
    sealed = here("seal", "--once", "--after", "0s")
    assert (sealed.code, sealed.err) == (0, "ci-eventstore: sealed 1 job\n")
    assert here("tail", "job-1").out == before
    assert here("verify", "--deep").code == 0
    root = json.loads(here("jobs", "show", "job-1", "--json").out)["root"]
    assert root in here("jobs", "show", "job-1").text
    data, file = cli("jobs", "segment", "job-1").out, tmp_path / "job-1.zst"
    file.write_bytes(data)
    found = here("verify-archive", str(file))
    assert (found.code, found.text.splitlines()[1:], found.err) == (0, ["consistent"], "")
    proven = here("verify-archive", str(file), "--root", root)
    assert (proven.code, proven.text.splitlines()[1]) == (0, "complete and unaltered")
    assert here("verify-archive", str(file), "--root", "ab" * 20).code == 1
    assert here("verify-archive", str(file), "--root", "ab").code == 2
    file.write_bytes(data[:10] + bytes([data[10] ^ 1]) + data[11:])
    altered = here("verify-archive", str(file))
    assert (altered.code, "block 0: its" in altered.text) == (1, True)
    assert here("verify-archive", str(tmp_path / "none")).code == 74
    assert here("seal", "--once").err == "ci-eventstore: sealed 0 jobs\n"


def test_a_log_is_archived_and_comes_back(cli: CommandLine, here: Callable[..., Ended], tmp_path: Path) -> None:
    """The store remembers where; another place is refused, and so is what isn't sealed; it reads as before."""
    (tmp_path / "archive").mkdir()
    url, once = (tmp_path / "archive").as_uri(), ("archive", "sweep", "--older-than", "0s", "--once")
    for job_id in ("job-1", "job-2"):
        cli("run", "--id", job_id, "--", "printf", "hello\\nworld\\n")
    before = here("tail", "job-1").out
    unnamed = here(*once)
    assert (unnamed.code, "--archive URL" in unnamed.err) == (2, True)
    assert here(*once, "--archive", url).err == "ci-eventstore: archived 0 jobs\n"
    unsealed = here("jobs", "archive", "job-1")
    assert (unsealed.code, "isn't sealed" in unsealed.err) == (4, True)
    here("seal", "--once", "--after", "0s")
    assert here("jobs", "archive", "job-1").text == "the log of job job-1 is in the archive\n"
    assert here("jobs", "archive", "job-1").text == "the log of job job-1 was there\n"
    assert here("archive", "sweep", "--older-than", "1h", "--once").err == "ci-eventstore: archived 0 jobs\n"
    assert here(*once).err == "ci-eventstore: archived 1 job\n"
    other = here(*once, "--archive", "file:///elsewhere")
    assert (other.code, "another one" in other.err) == (2, True)
    assert here("tail", "job-1").out == before
    assert here("verify", "--deep").code == 0
    assert here("jobs", "unarchive", "job-1").text == "the log of job job-1 is in the store\n"
    assert here("jobs", "unarchive", "job-1").text == "the log of job job-1 was there\n"
    assert here("tail", "job-1").out == before
    (tmp_path / "archive").rename(tmp_path / "away")
    away = here("tail", "job-2")
    assert (away.code, "can't be used" in away.err) == (4, True)
    shown = here("jobs", "show", "job-2", "--json")
    assert (shown.code, json.loads(shown.out)["root"], "can't be used" in shown.err) == (0, None, True)
    assert here("jobs", "delete", "job-1").code == 4
    (tmp_path / "away").rename(tmp_path / "archive")
    assert here("jobs", "delete", "job-1", "job-2").code == 0
    assert len([path for path in (tmp_path / "archive").rglob("*") if path.is_file()]) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "told"), [(("serve", "--port", "0"), "serving on "), (("controller",), "takes jobs from")]
)
def test_a_program_seals_meanwhile(
    cli: CommandLine, here: Callable[..., Ended], command: tuple[str, ...], told: str
) -> None:
    """Slow, as it starts a server: with `--seal-after`, that packs what has ended, and stops as before."""
    cli("run", "--id", "job-1", "--", "echo", "hello")
    server = cli.start(*command, "--seal-after", "0s")
    server.wait_for_error(told)
    wait_until(lambda: json.loads(here("jobs", "show", "job-1", "--json").out)["root"] is not None, "the job is sealed")
    server.send(signal.SIGTERM)
    assert server.end().code == 0
    assert here("verify", "--deep").code == 0


def test_an_archive_is_checked(cli: CommandLine, here: Callable[..., Ended], tmp_path: Path) -> None:
    """Damage is named, what isn't needed goes only if asked to; `restored` deletes again what was deleted."""
    for job_id in ("job-1", "job-2"):
        cli("run", "--id", job_id, "--", "echo", "hello")
    here("seal", "--once", "--after", "0s")
    assert here("archive", "check").code == 2
    assert "archive rebuild" not in here("restored").err
    here("archive", "sweep", "--archive", tmp_path.as_uri(), "--older-than", "0s", "--once")
    assert "deleted 0 jobs again; `ci-eventstore archive rebuild` brings what is missing" in here("restored").err
    whole = here("archive", "check", "--deep")
    assert (whole.code, whole.text) == (0, "")
    assert whole.err == "ci-eventstore: looked at 2 archived jobs and 2 objects: 0 damaged jobs\n"
    [first], [second] = (list((tmp_path).glob(f"*/0/{job_id}/*/*")) for job_id in ("job-1", "job-2"))
    data, other = first.read_bytes(), second.read_bytes()
    first.unlink()
    broken = here("archive", "check")
    assert (broken.code, broken.text.startswith("job job-1: segment ")) == (1, True)
    first.write_bytes(data)
    here("jobs", "delete", "job-2")
    second.write_bytes(other)
    assert here("archive", "check").text == f"not needed any more: {second.relative_to(tmp_path)}\n"
    assert here("archive", "check", "--remove").text == f"removed: {second.relative_to(tmp_path)}\n"
    assert here("archive", "rebuild").err == "ci-eventstore: brought back 0 jobs, deleted 0 again\n"
    (tmp_path / "empty").mkdir()
    assert here("archive", "rebuild", "--archive", (tmp_path / "empty").as_uri()).code == 4
    stone = next(tmp_path.glob("*/0/job-2/*/deleted-a"))
    text = stone.read_text().replace("job-2", "job-1").replace(stone.parent.name, first.parent.name)
    (first.parent / stone.name).write_text(text)
    tmp_path.rename(tmp_path.with_name("away"))
    away = here("restored")
    assert (away.code, "until you have run `ci-eventstore archive rebuild`" in away.err) == (1, True)
    assert here("jobs", "show", "job-1").code == 0
    tmp_path.with_name("away").rename(tmp_path)
    assert "deleted 1 job again" in here("restored").err
    assert "was deleted" in here("jobs", "show", "job-1").err


@pytest.mark.slow
def test_a_server_archives_meanwhile(cli: CommandLine, here: Callable[..., Ended], tmp_path: Path) -> None:
    """Slow, as it starts a server: that archives, and stops as before; it doesn't start with half of the options."""
    half = cli("serve", "--archive", tmp_path.as_uri())
    assert (half.code, "give both" in half.err) == (2, True), half.err
    cli("run", "--id", "job-1", "--", "echo", "hello")
    here("seal", "--once", "--after", "0s")
    server = cli.start("serve", "--port", "0", "--archive", tmp_path.as_uri(), "--archive-after", "0s")
    server.wait_for_error("serving on ")
    wait_until(lambda: len(list(tmp_path.rglob("0.1-*"))) == 1, "the job is archived")
    server.send(signal.SIGTERM)
    assert server.end().code == 0
    assert here("verify", "--deep").code == 0
