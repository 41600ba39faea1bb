"""Objects of an archive: in a folder, and in a bucket behind a proxy that breaks requests."""

import asyncio
import base64
import json
import traceback
from pathlib import Path

import pytest

from ci_eventstore import archive as archives
from ci_eventstore.archive import MARK, Archive, object_name
from ci_eventstore.errors import ArchiveDiffersError, ArchiveUnavailableError, ConfigurationError
from tests.http_faults import SECRET, HttpFault, HttpFaultProxy, broken

DATA = bytes(range(256)) * 40
NAME = object_name("ci", 0, "j", "a1", "0.1-30.0-0123456789abcdef")


@pytest.fixture
async def folder(tmp_path: Path) -> Archive:
    """An archive in a folder."""
    archive = Archive(tmp_path.as_uri())
    await archive.prepare()
    return archive


async def test_an_object_is_there_once_and_as_it_was_written(folder: Archive) -> None:
    """It may be written again, by two at once; all of it and each part are read as they were written."""
    await asyncio.gather(*(folder.put(NAME, DATA) for _ in range(4)))
    assert await folder.get(NAME) == DATA
    size = len(DATA)
    for start, end in ((0, 5), (3, 4), (10_000, 99_999), (0, size), (size, size + 1), (7, 7), (99_999, 100_000)):
        assert await folder.get_range(NAME, start, end) == DATA[start:end]
    with pytest.raises(ArchiveDiffersError, match=NAME.replace("+", r"\+")):
        await folder.put(NAME, DATA[:-1])
    assert await folder.get(NAME) == DATA
    await folder.delete(NAME)
    await folder.delete(NAME)
    assert await folder.get(NAME) is None
    assert await folder.get_range(NAME, 0, 5) == b""


async def test_what_is_read_half_is_read_again(folder: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that it is read at first; what has become of it is synced before the writing is done."""
    read, settled, looks = Archive._read, list[str](), 0

    async def read_half(archive: Archive, name: str) -> bytes | None:
        nonlocal looks
        looks += name == NAME
        found = await read(archive, name)
        return found[:9] if found and name == NAME and looks % 2 else found

    async def settle(archive: Archive, name: str) -> None:
        settled.append(name)

    monkeypatch.setattr(Archive, "_read", read_half)
    monkeypatch.setattr(Archive, "_settle", settle)
    await folder.put(NAME, DATA)
    assert settled == [NAME]


async def test_lists_go_on_where_they_ended(folder: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names come in their order, also of a file system, which has none; nothing of other folders is among them."""
    names = sorted(object_name("ci", number % 2, f"j{number}", "a", "s") for number in range(40))
    await asyncio.gather(*(folder.put(name, b"x") for name in reversed(names)))
    await folder.put(object_name("other", 0, "j", "a", "s"), b"x")
    monkeypatch.setattr(archives, "PAGE_NAMES", 7)
    found = [one.name async for page in folder.pages("ci") for one in page]
    assert found == names
    assert [one.name async for page in folder.pages("ci", names[12]) for one in page] == names[13:]
    assert [page async for page in folder.pages("nothing")] == []
    assert sorted(await folder.folders("ci")) == ["0", "1"]
    assert await folder.folders("nothing") == []


async def test_a_folder_that_is_gone_is_no_empty_archive(folder: Archive, tmp_path: Path) -> None:
    """What wasn't mounted, or was emptied, is away: nothing of it is said to be missing, nothing is written to it."""
    await folder.put(NAME, DATA)
    (tmp_path / MARK).unlink()
    assert await folder.get(NAME) == DATA
    (tmp_path / NAME).unlink()
    for url in (tmp_path.as_uri(), (tmp_path / "nothing").as_uri()):
        archive = Archive(url)
        for call in (archive.get(NAME), archive.get_range(NAME, 0, 5), archive.delete(NAME), _names(archive)):
            with pytest.raises(ArchiveUnavailableError, match="no archive"):
                await call
    with pytest.raises(ArchiveUnavailableError, match="isn't there"):
        await Archive((tmp_path / "nothing").as_uri()).put(NAME, DATA)
    assert not (tmp_path / "nothing").exists()


async def _names(archive: Archive) -> list[str]:
    return [one.name async for page in archive.pages("ci") for one in page]


@pytest.mark.parametrize(
    "job_id", ["a/b", "..", ".", "ü" * 256, "A" * 256, "%2F", "=2f", "a b\\c:*?", "😀\ud800", "~", "+", "CON"]
)
async def test_any_id_has_a_name(folder: Archive, tmp_path: Path, job_id: str) -> None:
    """Ids with slashes, dots, other scripts or 256 characters are written, read, listed, and stay in the archive."""
    name = object_name(job_id, 0, job_id, None, "s")
    await folder.put(name, DATA)
    assert await folder.get(name) == DATA
    assert [one async for page in folder.pages(name.partition("/")[0]) for one in page] == [(name, len(DATA))]
    assert (tmp_path / name).read_bytes() == DATA
    assert name.isascii()


@pytest.fixture
async def bucket(bucket_proxy: HttpFaultProxy, request: pytest.FixtureRequest) -> Archive:
    """An archive in a bucket."""
    archive = Archive(f"s3://logs/{abs(hash(request.node.name))}?endpoint=http://127.0.0.1:{bucket_proxy.port}")
    await archive.prepare()
    return archive


@pytest.mark.slow  # moto starts in two seconds
async def test_a_bucket_keeps_objects_as_a_folder_does(bucket: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written once, read in parts, listed in pages, removed."""
    await asyncio.gather(bucket.put(NAME, DATA), bucket.put(NAME, DATA))
    for start, end in ((0, 5), (10_000, 99_999), (len(DATA), len(DATA) + 1), (99_999, 100_000)):
        assert await bucket.get_range(NAME, start, end) == DATA[start:end]
    with pytest.raises(ArchiveDiffersError):
        await bucket.put(NAME, DATA[1:])
    names = [object_name("ci", 1, f"j{number}", "a", "s") for number in range(9)]
    await asyncio.gather(*(bucket.put(name, b"x") for name in names))
    monkeypatch.setattr(archives, "PAGE_NAMES", 4)
    pages = [[one.name for one in page] async for page in bucket.pages("ci/1")]
    assert pages == [names[:4], names[4:8], names[8:]]
    assert sorted(await bucket.folders("ci")) == ["0", "1"]
    assert await bucket.folders("nothing") == []
    await bucket.delete(NAME)
    await bucket.delete(NAME)
    assert await bucket.get(NAME) is None
    assert await bucket.get_range(NAME, 0, 5) == b""


@pytest.mark.slow  # it waits for requests that are tried again
@pytest.mark.parametrize("fault", [HttpFault.ANSWER_LOST, HttpFault.BROKEN, HttpFault.SLOW_DOWN, HttpFault.CONFLICT])
async def test_what_happens_once_to_a_writing_is_nothing(
    bucket: Archive, bucket_proxy: HttpFaultProxy, fault: HttpFault
) -> None:
    """A lost answer, which the next try finds as 412 for our own object; 500, 503 and 409: the object is there."""
    bucket_proxy.plan = broken(fault, "PUT", times=1)
    await bucket.put(NAME, DATA)
    assert bucket_proxy.faults == 1
    assert await bucket.get(NAME) == DATA


@pytest.mark.slow  # it waits for requests that are tried again
@pytest.mark.parametrize(
    "fault",
    [HttpFault.CONFLICT, HttpFault.PRECONDITION, HttpFault.BROKEN, HttpFault.SLOW_DOWN, HttpFault.FORBIDDEN,
     HttpFault.STALL],
)  # fmt: skip
async def test_what_cant_be_written_is_said(bucket: Archive, bucket_proxy: HttpFaultProxy, fault: HttpFault) -> None:
    """Whatever keeps each writing from the server: a named error, nothing secret in it; later it works."""
    bucket_proxy.plan = broken(fault, "PUT")
    with pytest.raises(ArchiveUnavailableError) as caught:
        await bucket.put(NAME, DATA)
    assert NAME in str(caught.value)
    assert SECRET not in repr(caught.getrepr(style="long")) + str(caught.value)
    bucket_proxy.plan = lambda method: None
    assert await bucket.get(NAME) is None
    await bucket.put(NAME, DATA)


@pytest.mark.slow  # it waits for requests that are tried again
async def test_what_is_read_back_decides(bucket: Archive, bucket_proxy: HttpFaultProxy) -> None:
    """A byte that is flipped on its way once is read again; flipped each time, nothing says that it was archived."""
    bucket_proxy.plan = broken(HttpFault.BYTE_FLIPPED, "GET", times=1)
    await bucket.put(NAME, DATA)
    assert bucket_proxy.faults == 1
    bucket_proxy.plan = broken(HttpFault.BYTE_FLIPPED, "GET")
    with pytest.raises(ArchiveDiffersError):
        await bucket.put(NAME, DATA)


@pytest.mark.slow  # it waits for requests that are tried again
@pytest.mark.parametrize("fault", [HttpFault.BODY_CUT, HttpFault.STALL, HttpFault.BROKEN, HttpFault.FORBIDDEN])
async def test_what_cant_be_read_is_away_and_not_missing(
    bucket: Archive, bucket_proxy: HttpFaultProxy, fault: HttpFault
) -> None:
    """A body cut short, no answer, 500 or 403 are never fewer bytes, and never no object."""
    await bucket.put(NAME, DATA)
    bucket_proxy.plan = broken(fault, "GET")
    for call in (bucket.get(NAME), bucket.get_range(NAME, 100, 9_000)):
        with pytest.raises(ArchiveUnavailableError):
            await call
    bucket_proxy.plan = broken(fault, "GET", times=1)
    if fault in (HttpFault.BODY_CUT, HttpFault.BROKEN):
        assert await bucket.get_range(NAME, 100, 9_000) == DATA[100:9_000]


@pytest.mark.slow  # an answer that takes its time
async def test_what_comes_slowly_is_whole_or_away(
    bucket: Archive, bucket_proxy: HttpFaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes at a time: all of them within a call's limit, a named error beyond it, and never fewer."""
    await bucket.put(NAME, DATA)
    bucket_proxy.plan = broken(HttpFault.DRIP, "GET")
    monkeypatch.setattr(archives, "CALL_SECONDS", 30.0)
    assert await bucket.get(NAME) == DATA
    assert await bucket.get_range(NAME, 100, 9_000) == DATA[100:9_000]
    assert bucket_proxy.faults == 2
    # Less than its bytes take, however fast the machine is.
    monkeypatch.setattr(archives, "CALL_SECONDS", 0.2)
    for call in (bucket.get(NAME), bucket.get_range(NAME, 100, 9_000)):
        with pytest.raises(ArchiveUnavailableError, match="no answer within"):
            await call
    bucket_proxy.plan = lambda method: None
    monkeypatch.setattr(archives, "CALL_SECONDS", 30.0)
    assert await bucket.get(NAME) == DATA


@pytest.mark.slow  # it waits for requests that are tried again
async def test_another_bucket_or_nobody_there_is_away(bucket_proxy: HttpFaultProxy, moto: int) -> None:
    """A bucket that isn't there has no missing objects; nor has a server that isn't there."""
    for url in (f"s3://nothing/x?endpoint=http://127.0.0.1:{moto}", "s3://logs/x?endpoint=http://127.0.0.1:1"):
        archive = Archive(url)
        for call in (archive.get(NAME), archive.get_range(NAME, 0, 5), archive.put(NAME, DATA), archive.prepare()):
            with pytest.raises(ArchiveUnavailableError):
                await call


#: As Azure's keys are written.
PACKED_SECRET = base64.b64encode(SECRET.encode()).decode()
#: The variables that other services' own programs have, at addresses where nobody listens.
OTHER_SERVICES = {
    "gs://logs/x": {
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(
            {
                "gcs_base_url": "https://127.0.0.1:1",
                "disable_oauth": True,
                "client_email": "ci@example.org",
                "private_key": SECRET,
                "private_key_id": SECRET,
            }
        )
    },
    "az://logs/x": {
        "AZURE_STORAGE_ACCOUNT_NAME": "someone",
        "AZURE_STORAGE_ACCOUNT_KEY": PACKED_SECRET,
        "AZURE_STORAGE_ENDPOINT": "https://127.0.0.1:1",
    },
    # A signature that stands in the address of each request.
    "az://logs/signed": {
        "AZURE_STORAGE_ACCOUNT_NAME": "someone",
        "AZURE_STORAGE_SAS_KEY": f"sv=2022-11-02&sig={SECRET}",
        "AZURE_STORAGE_ENDPOINT": "https://127.0.0.1:1",
    },
}


@pytest.mark.parametrize("url", list(OTHER_SERVICES))
async def test_other_services_are_opened_and_nobody_there_is_away(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """With what the environment says; each call is refused by name, and shows no secret."""
    monkeypatch.setattr(archives, "RETRIES", 0)
    for name, value in OTHER_SERVICES[url].items():
        monkeypatch.setenv(name, value)
    archive = Archive(url)
    for call in (archive.put(NAME, DATA), archive.get(NAME), archive.folders("ci"), archive.delete(NAME)):
        with pytest.raises(ArchiveUnavailableError, match=f"at {url} ") as caught:
            await call
        shown = "".join(traceback.format_exception(caught.value))
        assert SECRET not in shown
        assert PACKED_SECRET not in shown


@pytest.mark.parametrize(
    ("url", "name", "value"),
    [
        ("gs://logs/x", "GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(SECRET)),
        ("gs://logs/x", "GOOGLE_SERVICE_ACCOUNT", f"/nowhere/{SECRET}"),
        ("az://logs/x", "AZURE_STORAGE_ACCOUNT_KEY", SECRET),
    ],
)
def test_credentials_that_make_no_sense_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str, value: str
) -> None:
    """Though the library quotes what it can't read."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "someone")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="can't be opened") as caught:
        Archive(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
