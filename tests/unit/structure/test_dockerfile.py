"""The image has what it copies, nothing that builds, and no root."""

import re
import tomllib

import pytest

from tests.operating.images import IMAGE, read_dockerfile
from tests.unit.structure.source import ROOT

STAGES = read_dockerfile((ROOT / "Dockerfile").read_text())
BUILD = STAGES[0]


def test_what_builds_stays_behind() -> None:
    """There are two stages of one slim image, pinned to a minor version; the second gets the environment alone."""
    assert [stage.name for stage in STAGES] == ["build", ""]
    assert {stage.source for stage in STAGES} == {IMAGE.source}
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", IMAGE.source)
    assert IMAGE.values("COPY") == ["--from=build /opt/ci-eventstore /opt/ci-eventstore"]
    assert "--without-pip" in BUILD.values("RUN")[0]
    assert "rm -rf /var/lib/apt/lists/*" in IMAGE.values("RUN")[0]


def test_all_that_is_copied_is_there() -> None:
    """Files that the first stage copies exist, and aren't left out of what Docker is sent."""
    sources = [source for value in BUILD.values("COPY") for source in value.split()[:-1]]
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert set(sources) == sent
    assert all((ROOT / source).exists() for source in sources)


def test_what_is_installed_has_names() -> None:
    """The extras are all that servers, controllers and archives need; the label has the project's version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, _, extras = BUILD.values("ARG")[0].partition("=")
    assert f'".[${{{name}}}]"' in BUILD.values("RUN")[0]
    known = set(project["optional-dependencies"])
    assert set(extras.split(",")) == known - {"masking", "embedded", "bench", "all", "dev"}
    assert IMAGE.labels["org.opencontainers.image.version"] == project["version"]
    assert all(IMAGE.labels.values())


def test_nobody_is_root() -> None:
    """The user is a number other than 0, by which Kubernetes sees that, and comes after all that needs root."""
    keywords = [keyword for keyword, _ in IMAGE.instructions]
    assert all(int(number) > 0 for number in IMAGE.values("USER")[-1].split(":"))
    assert keywords.index("USER") > max(place for place, keyword in enumerate(keywords) if keyword in {"RUN", "COPY"})


def test_the_first_process_collects_others() -> None:
    """`tini` starts the program; without arguments that is the server, where others reach it."""
    assert IMAGE.command("ENTRYPOINT") == ["tini", "--", "ci-eventstore"]
    assert IMAGE.command("CMD") == ["serve", "--host", "0.0.0.0"]
    assert "tini" in IMAGE.values("RUN")[0].split()


@pytest.mark.parametrize("text", ["RUN true", "FROM a\nrun true", "FROM a\nwhat is this"])
def test_what_is_no_dockerfile_is_refused(text: str) -> None:
    """The reader takes no line that it doesn't understand."""
    with pytest.raises(ValueError, match=r"is no instruction|stands before"):
        read_dockerfile(text)
