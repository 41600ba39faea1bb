"""Names of objects, and URLs of archives. Pure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci_eventstore.archive import Archive, object_name
from ci_eventstore.errors import ConfigurationError

ids = st.text(min_size=1, max_size=256)


@settings(max_examples=20)
@given(ids, ids)
def test_names_are_safe_and_distinct(one: str, other: str) -> None:
    """Each part is a file's name everywhere; two ids share none, also where capitals count for nothing."""
    name = object_name("ci", 0, one, "a1", "s")
    parts = name.split("/")
    assert len(parts) == 5
    assert all(0 < len(part) <= 200 and not part.startswith(".") for part in parts)
    assert (name.lower() == object_name("ci", 0, other, "a1", "s").lower()) == (one == other)


def test_names_stay() -> None:
    """What is archived is found by its name for ever."""
    assert object_name("ci", 3, "build-17", "5f", "0.1-9.0-00ff") == "ci/3/build-17/5f/0.1-9.0-00ff"
    assert object_name("ci", 3, ".ä/", None, "s") == "ci/3/=2e=c3=a4=2f/-/s"
    assert object_name("ci", 3, "Build", None, "s") == "ci/3/Build+7b2ee57b3435b4f616a9631b76fa6336/-/s"


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://host/x", "file://host/x", "file:///", "file:///x?endpoint=y", "s3:///x", "s3://key:hidden@bucket/x",
        "s3://bucket?secret_access_key=hidden", "s3://bucket?endpoint=http://hidden:hidden@host",
        "s3://bucket?endpoint=ftp://host", "s3://bucket#hidden", "az://box?sas=hidden", "s3://bucket?hidden",
        "s3://[hidden",
    ],
)  # fmt: skip
def test_a_url_with_a_secret_or_without_sense_is_refused(url: str) -> None:
    """What might be a secret isn't in the message."""
    with pytest.raises(ConfigurationError) as caught:
        Archive(url)
    assert "hidden" not in str(caught.value)
