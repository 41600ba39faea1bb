"""URLs of servers: which there are, and that no message has what is secret in one."""

import re
import traceback
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ci_eventstore.connection.connections import client_of
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.errors import ConfigurationError
from tests.examples import examples

#: Letters that stand nowhere else in the URLs, and what has a meaning in one.
SECRETS = st.text("XYZ:/?#[]@%&= ", min_size=2, max_size=12).filter(lambda text: bool(re.search("[XYZ]{2}", text)))
#: Where a secret may stand.
PLACES = (
    "redis://:{}@h/0",
    "redis://user:{}@h:6379/0",
    "redis://{}@h",
    "rediss://user:{}@h",
    "valkey://user:{}@h/1",
    "valkeys://:{}@[::1]:6380/1",
    "redis://h/?password={}",
    "redis://h/0?db=1&password={}",
    "redis://h/?username=u&password={}",
    "redis://h/?passwrd={}",
    "redis://h?{}",
    "redis://user:{}@h?protocol=nine",
    "redis://user:{}@h?colour=red",
    "redis://user:{}@h/x",
    "redis://user:{}@h:port/0",
    "unix:///x.sock?password={}",
    "unix://user:{}@/x.sock?db=1",
    "unix:///x.sock?passwrd={}",
    "http://user:{}@h",
    "user:{}@h:6379",
)


def said_of(url: str) -> str:
    """Return all that is ever shown of a URL."""
    try:
        deployment = from_url(url)
    except ConfigurationError as error:
        return "".join(traceback.format_exception_only(error)) + (
            "" if error.__suppress_context__ else repr(error.__context__)
        )
    return f"{deployment.name} {deployment!r}"


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=examples(160))
@given(secret=SECRETS)
@example(secret="hunXYer2")
@example(secret="hunt[XYer2")
@example(secret="hunt/XY?er2@")
@example(secret="XY&password=XY")
@example(secret="@/XY")
@example(secret="@/XY/Z@/")
def test_a_password_is_never_shown(place: str, secret: str) -> None:
    """Wherever it stands, as it is or percent-encoded, and whether the URL can be read or not."""
    for written in (secret, quote(secret, safe="")):
        assert not re.search("[XYZ]{2}|hunt", said_of(place.format(written)), re.IGNORECASE)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h"),
        ("redis://user:secret@h:1/0", "redis://***@h:1/0"),
        ("redis://:secret@h", "redis://***@h"),
        ("redis://secret@h", "redis://***@h"),
        ("valkeys://[::1]:6380/2?password=x&socket_timeout=3", "valkeys://[::1]:6380/2?password=***&socket_timeout=3"),
        ("unix:///x.sock?password=hunter2&db=3", "unix:///x.sock?password=***&db=3"),
        ("unix://user:pw@/tmp/a@b.sock", "unix://***@/tmp/a@b.sock"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    """Enough to know the server by, with stars for what may be secret."""
    assert from_url(url).name == shown


@pytest.mark.parametrize(("url", "same"), [("valkey://u:p@h:1/2", "redis"), ("valkeys://u:p@h:1/2", "rediss")])
def test_valkeys_schemes(url: str, same: str) -> None:
    """`valkey://` is as `redis://`, `valkeys://` as `rediss://`."""
    deployment = from_url(url)
    other = from_url(same + url[url.index("://") :])
    assert deployment.connection_options == other.connection_options
    assert deployment.connection_class is other.connection_class
    assert client_of(deployment, 1).connection_pool.make_connection().host == "h"


def test_a_percent_encoded_password_is_decoded() -> None:
    """What the message asks for works."""
    assert from_url("redis://:a%2Fb%3Fc%23d%40e%5Bf%5D@h").connection_options["password"] == "a/b?c#d@e[f]"
    with pytest.raises(ConfigurationError, match="%23"):
        from_url("redis://:a#b@h")
