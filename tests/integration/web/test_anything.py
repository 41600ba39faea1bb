"""Whatever a client sends, no answer is a 500, and nothing is logged as a mistake of ours."""

import string
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci_common.models import Job
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.document import COOKIE
from tests.integration.web.raw import exchange
from tests.integration.web.serving import Account, Served, create_ended_job

PATHS = ["/jobs", "/jobs/{}", "/jobs/{}/cancel", "/jobs/{}/again", "/jobs/{}/stream", "/jobs/{}/events", "/jobs/{}/log"]
PATHS += ["/health", "/ready", "/metrics", "/login", "/logout", "/session", "/changes", "/openapi.json", "/{}"]
PATHS += [
    "/jobs/{}/lines",
    "/jobs/{}/lines/1",
    "/jobs/{}/search",
    "/jobs/{}/outline",
    "/webhooks",
    "/webhooks/{}",
    "/webhooks/{}/test",
]
PARAMETERS = [
    "q",
    "mode",
    "case",
    "to",
    "from",
    "count",
    "time",
    "max_line",
    "offset",
    "status",
    "queue",
    "text",
    "detail",
    "limit",
    "before",
    "after",
    "line",
    "tail",
    "timestamps",
    "incarnation",
    "last_event_id",
]
HEADERS = ["Origin", "Host", "Authorization", "Cookie", "Content-Type", "Range", "If-Range", "Last-Event-ID"]
HEADERS += [
    "If-None-Match",
    "Idempotency-Key",
    "Accept",
    "Accept-Encoding",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "Connection",
]
HEADERS += ["Expect", "Access-Control-Request-Method", "Access-Control-Request-Headers"]
#: What has broken servers, ours among them.
ODD = [
    b"",
    b"http://[::1",
    b"[" * 4000,
    rb'{"key": "\ud800"}',
    rb'{"command": "\ud800"}',
    rb'{"url": "https://\ud800/"}',
    rb'{"command": ["a"], "queue": "\u0000"}',
    b'{"command": ' + b"[" * 2000,
    b'{"reason": ' + b'"' * 3,
    b'{"command": ["a"], "name": "' + bytes([0xED, 0xA0, 0x80]) + b'"}',
    b'{"command": "a", "queue": 1e999}',
    b"key=%ED%A0%80",
    b'--b\r\nContent-Disposition: form-data; name="command"\r\n\r\na\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="p"; filename="\xff"\r\n\r\nPK\x05\x06\r\n--b--\r\n',
    b"--b\r\nContent-Disposition: form-data\r\n\r\n\r\n--b--",
    b"multipart/form-data; boundary=b",
    b"multipart/form-data; boundary=",
    b"application/json",
    b"application/x-www-form-urlencoded; charset=odd",
    b"bytes=0-" + b"9" * 30,
    b"bytes=-" + b"9" * 18,
    b"9" * 5000,
    b"-1",
    "\u0662".encode(),
    b"\xb2",
    b"1e3",
    b"Bearer \xff",
    b"Basic YTpi",
    b"ci_session=\xff; ci_session=a; =",
    b"gzip;q=a",
    b"NaN",
    b"0001-01-01T00:00:00+14:00",
    b"9999-12-31T23:59:59-14:00",
    b"text/event-stream",
    b"https, http",
]

words = st.one_of(st.sampled_from(ODD), st.binary(max_size=40), st.from_regex(rb"[0-9]{1,20}", fullmatch=True))
values = words.map(lambda word: word.translate(None, b"\r\n\0"))
quoted = words.map(lambda word: quote_from_bytes(word[:500], safe=""))
names = st.one_of(st.sampled_from(PARAMETERS), st.text(string.ascii_letters, min_size=1, max_size=5))


@dataclass(frozen=True)
class Sent:
    """A request."""

    method: str
    path: str
    job: str
    query: list[tuple[str, str]]
    headers: list[tuple[str, bytes]]
    body: bytes
    has_key: bool

    @property
    def target(self) -> str:
        """The path with its query, as the request has it."""
        query = "&".join(f"{name}={value}" for name, value in self.query)
        return self.path.format(self.job or "j") + (f"?{query}" if query else "")


requests = st.builds(
    Sent,
    method=st.sampled_from(["GET", "HEAD", "POST", "POST", "PUT", "OPTIONS"]),
    path=st.sampled_from(PATHS),
    job=st.one_of(st.sampled_from(["j", "e"]), quoted),
    query=st.lists(st.tuples(names, quoted), max_size=3),
    headers=st.lists(st.tuples(st.sampled_from(HEADERS), values), max_size=4),
    body=words,
    has_key=st.booleans(),
)


@pytest.mark.slow  # Hundreds of requests, each over a connection of its own.
@pytest.mark.usefixtures("jobs")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=requests)
async def test_nothing_that_is_sent_is_answered_with_500(
    web: Served, ada: Account, caplog: pytest.LogCaptureFixture, sent: Sent
) -> None:
    """Every route, with odd parameters, headers and bodies, from a user and from anybody."""
    key = [("Authorization", f"Bearer {ada.key}".encode())] if sent.has_key else []
    status, _ = await exchange(web.url, sent.method, sent.target, [*key, *sent.headers], sent.body)
    assert status < 500
    assert mistakes(caplog) == []


@pytest.mark.slow  # Thousands of requests.
@pytest.mark.usefixtures("jobs")
async def test_each_odd_value_in_each_header_of_each_route(
    web: Served, ada: Account, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither one header nor one body breaks a route, for whoever has a key, a session or nothing."""
    async with web.client() as browser:
        token = (await browser.post("/login", json={"key": ada.key})).cookies[COOKIE]
    who = [("Authorization", f"Bearer {ada.key}".encode()), ("Cookie", f"{COOKIE}={token}".encode()), ("X-No", b"one")]
    methods = [("GET", path) for path in PATHS] + [("POST", path) for path in PATHS]
    for turn, (method, path) in enumerate(methods):
        for place, value in enumerate(ODD):
            clean = value.translate(None, b"\r\n\0")
            caller = who[(turn + place) % 3]
            # Each value in each header of each route comes by one of the two methods.
            for header in HEADERS[(turn // len(PATHS) + place) % 2 :: 2]:
                status, _ = await exchange(web.url, method, path.format("j"), [caller, (header, clean)])
                assert status < 500, (method, path, header, value)
            for kind in (b"application/json", b"multipart/form-data; boundary=b", b"application/x-www-form-urlencoded"):
                status, _ = await exchange(web.url, method, path.format("j"), [caller, ("Content-Type", kind)], value)
                assert status < 500, (method, path, kind, value)
    assert mistakes(caplog) == []


@pytest.fixture
async def jobs(repository: RedisJobRepository) -> None:
    """A job that runs, and one that has ended."""
    await create_ended_job(repository, "e", 3)
    await repository.create_job(Job(id="j", user_id="ada", status="running"))


def mistakes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"]
