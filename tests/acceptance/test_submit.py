"""`submit`: a job's project is packed, and unpacked where it runs, and nothing leads out of there."""

import json
import os
import stat
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine
from tests.acceptance.test_controller import folder, log, start_controller, state, stop, submit

__all__ = ["folder"]

EXECUTABLE = 0o100755 << 16


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a program, a file deep down, an empty folder, and a link to a file inside."""
    place = tmp_path / "project"
    (place / "deep" / "down").mkdir(parents=True)
    (place / "empty").mkdir()
    (place / "run.sh").write_text("#!/bin/sh\ncat deep/down/file linked; find . -type l; ls -d empty\n")
    (place / "run.sh").chmod(0o755)
    (place / "deep" / "down" / "file").write_text("from below\n")
    (place / "linked").symlink_to("deep/down/file")
    return place


def test_a_folder_goes_with_the_job(cli: CommandLine, folder: Path, project: Path) -> None:
    """As it was when the job was submitted: executable files stay so, links to files become files."""
    done = cli("submit", "--name", "n", "--dir", project, "--", "./run.sh")
    job_id = done.text.strip()
    assert done.text == f"{job_id}\n"
    (project / "run.sh").write_text("exit 1")
    controller = start_controller(cli, "it")
    assert log(cli, job_id) == "from below\nfrom below\nempty\n"
    assert state(cli, job_id) == ("completed", True)
    job = json.loads(cli("jobs", "show", job_id, "--json").out)
    [packed] = (folder / "data" / "ci-eventstore" / "files").iterdir()
    assert (job["name"], job["zip_file_path"], job["queue"]) == ("n", str(packed), "default")
    assert stat.S_IMODE(packed.parent.stat().st_mode) == 0o700
    stop(controller)


REFUSED_LINKS = {"out": "..", "to a folder": "empty", "to nowhere": "missing"}


@pytest.mark.parametrize("target", REFUSED_LINKS.values(), ids=REFUSED_LINKS)
def test_links_that_can_not_be_kept_are_refused(cli: CommandLine, folder: Path, project: Path, target: str) -> None:
    """What is wrong is said, and neither a job nor a file is there."""
    (project / "bad").symlink_to(target)
    done = cli("submit", "--dir", project, "--", "true")
    assert (done.code, done.out) == (2, b"")
    assert done.err == f"ci-eventstore: {project}/bad is a link that doesn't lead to a file inside of {project}\n"
    assert json.loads(cli("jobs", "list", "--json").out) == []
    assert list((folder / "data" / "ci-eventstore" / "files").iterdir()) == []


def test_what_can_not_be_submitted(cli: CommandLine, folder: Path, project: Path) -> None:
    """Nothing is created; a job that is there already keeps its project."""
    (folder / "text").write_text("text")
    refused = {
        ("--zip", f"{folder}/none"): f"{folder}/none can't be read: No such file or directory",
        ("--zip", f"{folder}/text"): f"{folder}/text is no zip file",
        ("--zip", f"{folder}/text", "--dir", str(project)): "--dir and --zip can't be used together",
        ("--dir", f"{folder}/text"): "is a file",
        ("--user", "nobody"): "there is no user 'nobody'",
        ("--queue", "{x}"): "brace",
    }
    for options, message in refused.items():
        done = cli("submit", *options, "--", "true")
        assert (done.code in {2, 3}, done.out) == (True, b"")
        assert message in done.err
    submit(cli, "a/../b", "--dir", project, "--", "true")
    again = cli("submit", "--id", "a/../b", "--dir", project, "--", "true")
    assert (again.code, again.out) == (2, b"")
    assert len(json.loads(cli("jobs", "list", "--json").out)) == 1
    assert len(list((folder / "data" / "ci-eventstore" / "files").iterdir())) == 1


def write_zip(path: Path, *entries: tuple[str, int]) -> None:
    """Write a zip file of entries with these names and attributes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, attributes in entries:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = attributes
            archive.writestr(entry, "../../escaped")


EVIL = {
    "../escaped": (("ok", EXECUTABLE), ("../escaped", EXECUTABLE)),
    "/tmp/../../escaped": (("/tmp/../../escaped", EXECUTABLE),),
    "link": (("link", (stat.S_IFLNK | 0o777) << 16), ("link/escaped", EXECUTABLE)),
    "device": (("device", (stat.S_IFCHR | 0o777) << 16),),
}


def test_a_zip_file_that_leads_out_fails_its_job(cli: CommandLine, folder: Path) -> None:
    """The log says which entry is at fault; nothing is written outside of the job's folder."""
    controller = start_controller(cli, "it")
    for number, entries in enumerate(EVIL.values()):
        write_zip(folder / f"{number}.zip", *entries)
        submit(cli, f"j{number}", "--zip", folder / f"{number}.zip", "--", "sh", "-c", "echo it ran")
    for number, name in enumerate(EVIL):
        text = log(cli, f"j{number}")
        assert text.startswith(f"[the project can't be unpacked: {name!r} ")
        assert text.count("\n") == 1
        assert state(cli, f"j{number}") == ("failed", False)
    assert list(folder.rglob("escaped")) == []
    stop(controller)


def test_a_project_that_is_gone_fails_its_job(cli: CommandLine, folder: Path) -> None:
    """The log says which file can't be read."""
    path = folder / "it.zip"
    write_zip(path, ("file", EXECUTABLE))
    submit(cli, "it", "--zip", os.path.relpath(path), "--", "true")
    path.unlink()
    controller = start_controller(cli, "it")
    assert log(cli, "it") == f"[the project {path} can't be unpacked: No such file or directory]\n"
    assert state(cli, "it") == ("failed", False)
    stop(controller)
