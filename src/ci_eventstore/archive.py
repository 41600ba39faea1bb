"""An archive: objects in a folder or a bucket, which are written once, read back, and found by safe names.

The library behind it, `obstore`, comes with the extra `archive`. Its own words are never passed on: they may quote a
server's answer, or a signed address, and so what nobody else may know.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ci_eventstore.errors import ArchiveDiffersError, ArchiveUnavailableError, ConfigurationError

#: The object that says that an archive is there, and not the empty folder that another one wasn't mounted in.
MARK = "ci-eventstore-archive"
MARK_DATA = b"archive of ci_eventstore, version 1\n"

#: In a store's folder, it says which store that is: two of one name would take each other's jobs for unknown ones.
OWNER = "ci-eventstore-store"

#: A request, and a call with all its requests; a call is tried again by whoever needs it, not for minutes in here.
REQUEST_SECONDS = 15
CONNECT_SECONDS = 3
RETRY_SECONDS = 10
CALL_SECONDS = 45.0
RETRIES = 2
#: How often an object is written that isn't there although another one was said to be.
WRITES = 3

PAGE_NAMES = 1000
#: A longer name isn't one of every file system; so many characters of it stay, and a digest.
LONGEST_NAME = 160
KEPT_OF_NAME = 100

_SAFE = re.compile(rb"[A-Za-z0-9_.-]")
_STATUS = re.compile(r"\b(?:status|code)?:? ?\b([45]\d\d)\b")
_LACKS_EXTRA = "an archive needs the extra: pip install 'ci-eventstore[archive]'"
_SCHEMES = ("file", "s3", "gs", "az")
T = TypeVar("T")


class Listed(NamedTuple):
    """An object of a list."""

    name: str
    size: int


class Archive:
    """The objects at one URL; all calls raise ArchiveUnavailableError if it is away, refuses, or is no archive.

        archive = Archive("s3://bucket/logs?endpoint=https://minio.example")
        await archive.prepare()
        await archive.put(object_name("ci", 0, "3f9c", incarnation, segment), data)

    A URL is `file:///folder`, or `s3://`, `gs://` or `az://` with a bucket and a prefix, and `endpoint` and `region` as
    its query. Who may use it stands in the environment, as that service's own programs have it. ConfigurationError.
    """

    def __init__(self, url: str) -> None:
        parts, options = _checked(url)
        self.url = url
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._open = partial(_open, parts, options)
        #: The library's store: its type is known only where the extra is.
        self._opened: Any = None
        if self._folder is None:
            self._store()
        elif find_spec("obstore") is None:
            raise ConfigurationError(_LACKS_EXTRA)

    async def prepare(self) -> None:
        """Say that an archive is there; whoever has a new one begins with that."""
        await self.put(MARK, MARK_DATA)

    async def check(self) -> None:
        """Refuse what is no archive, or none any more."""
        await self._check_mark("")

    async def put(self, name: str, data: bytes) -> None:
        """Write an object unless it is there, and read it back; ArchiveDiffersError if it has other bytes.

        Whatever the answer was to the writing, or if it was lost: what is there then decides.
        """
        if self._folder is not None:
            # The disk may not be mounted; a bucket can't be missing unnoticed.
            await self._check_mark(name)
        for left in reversed(range(WRITES)):
            refusal = await self._create(name, data)
            found = await self._read(name)
            if found is not None and found != data:
                # Of what somebody else is just writing, some services give a part.
                found = await self._read(name)
            if found == data:
                await self._settle(name)
                return
            if found is not None:
                raise ArchiveDiffersError(self.url, name)
            if not left:
                raise self._failure(refusal or "it is gone again", name)

    async def get(self, name: str) -> bytes | None:
        """Return an object, None if it isn't there."""
        found = await self._read(name)
        if found is None:
            await self._check_mark(name)
        return found

    async def get_range(self, name: str, start: int, end: int) -> bytes:
        """Return some bytes of an object; fewer, if they aren't there."""
        if start >= end:
            return b""

        async def read() -> bytes:
            from obstore import get_range_async

            return bytes(await get_range_async(self._store(), name, start=start, end=end))

        try:
            return await self._call(read)
        except FileNotFoundError:
            await self._check_mark(name)
            return b""
        except _RefusedError as refusal:
            # A range that begins after the end is no error of its own kind.
            if await self._size(name) <= start:
                return b""
            raise self._failure(str(refusal), name) from None

    async def pages(self, prefix: str, after: str = "") -> AsyncIterator[list[Listed]]:
        """Yield the objects of a folder and all below it, by their names, from the one after `after`, in pages."""
        # A file system has no order, so all names are needed before the first one is known.
        count = PAGE_NAMES if self._folder is None else None
        while True:
            try:
                page = await self._call(partial(self._listed, prefix, after, count))
            except FileNotFoundError:
                page = []
            except _RefusedError as refusal:
                raise self._failure(str(refusal), prefix) from None
            if not page and not after:
                await self._check_mark(prefix)
            if page:
                yield page
                after = page[-1].name
            if count is None or len(page) < count:
                return

    async def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders that are directly in a folder."""

        async def look() -> list[str]:
            from obstore import list_with_delimiter_async

            found = await list_with_delimiter_async(self._store(), prefix)
            return [one.rstrip("/").rpartition("/")[2] for one in found["common_prefixes"]]

        try:
            return await self._call(look)
        except FileNotFoundError:
            return []
        except _RefusedError as refusal:
            raise self._failure(str(refusal), prefix) from None

    async def delete(self, name: str) -> None:
        """Remove an object; that it isn't there is as good."""

        async def remove() -> None:
            from obstore import delete_async

            await delete_async(self._store(), name)

        try:
            await self._call(remove)
        except FileNotFoundError:
            await self._check_mark(name)
        except _RefusedError as refusal:
            raise self._failure(str(refusal), name) from None

    def _store(self) -> Any:
        # A folder that isn't there yet, or not any more, can't be opened.
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    async def _create(self, name: str, data: bytes) -> str:
        """Write an object unless there is one; return why it wasn't written, if it is known."""

        async def write() -> None:
            from obstore import put_async

            # In one request: an object of several parts isn't refused everywhere when there is one.
            await put_async(self._store(), name, data, mode="create", use_multipart=False)

        try:
            await self._call(write)
        except FileNotFoundError:
            return "its folder or bucket isn't there"
        except _RefusedError as refusal:
            return str(refusal)
        return ""

    async def _read(self, name: str) -> bytes | None:
        async def read() -> bytes:
            from obstore import get_async

            return bytes(await (await get_async(self._store(), name)).bytes_async())

        try:
            return await self._call(read)
        except FileNotFoundError:
            return None
        except _RefusedError as refusal:
            raise self._failure(str(refusal), name) from None

    async def _size(self, name: str) -> int:
        async def look() -> int:
            from obstore import head_async

            return (await head_async(self._store(), name))["size"]

        try:
            return await self._call(look)
        except FileNotFoundError:
            return 0
        except _RefusedError as refusal:
            raise self._failure(str(refusal), name) from None

    async def _listed(self, prefix: str, after: str, count: int | None) -> list[Listed]:
        from obstore import list as listing

        found = list[Listed]()
        async for page in listing(self._store(), prefix, offset=after or None, chunk_size=PAGE_NAMES):
            found += [Listed(one["path"], one["size"]) for one in page]
            if count is not None and len(found) >= count:
                break
        return sorted(found)[:count]

    async def _check_mark(self, name: str) -> None:
        """Refuse to say that something is missing where no archive is."""
        if name != MARK and await self._read(MARK) is None:
            raise self._failure(f"there is no archive: {MARK!r} isn't there", name)

    async def _settle(self, name: str) -> None:
        """Have a file system keep what was written, also if the power fails."""
        if self._folder is None:
            return
        try:
            await asyncio.to_thread(_sync, self._folder, self._folder / name)
        except OSError as error:
            raise self._failure(f"it can't be synced: {error.strerror}", name) from None

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do what takes requests; FileNotFoundError, or a refusal in words that are safe to pass on."""
        from obstore.exceptions import NotFoundError

        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await call()
        except (FileNotFoundError, NotFoundError):
            raise FileNotFoundError from None
        except TimeoutError:
            raise _RefusedError(f"no answer within {CALL_SECONDS:g} seconds") from None
        except Exception as error:  # noqa: BLE001 - the library raises plain ones, too, and all mean the same here
            raise _RefusedError(_words_of(error)) from None

    def _failure(self, why: str, name: str) -> ArchiveUnavailableError:
        return ArchiveUnavailableError(self.url, f"{why} ({name})" if name else why)


class _RefusedError(Exception):
    """Raised within this module when a call came to nothing."""


def object_name(store: str, partition: int, job_id: str, incarnation: str | None, segment: str) -> str:
    """Return the name of a segment's object, safe for any id: the folders are store, partition, job, incarnation. Pure.

    Distinct ids have distinct names, also where a file system takes capitals for small letters.
    """
    return "/".join((safe_name(store), str(partition), safe_name(job_id), safe_name(incarnation or "-"), segment))


def text_of(part: str) -> str | None:
    """Return what a folder of such a name stands for; None if the name doesn't say it whole. Pure."""
    if "+" in part:
        return None
    data = re.sub(rb"=([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), part.encode())
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def safe_name(text: str) -> str:
    """Return how a folder is named for a store, a job or an incarnation. Pure."""
    data = text.encode("utf-8", "surrogatepass")
    name = "".join(_escaped(byte) for byte in data)
    if name.startswith("."):
        name = f"=2e{name[1:]}"
    has_capitals = text != text.lower()
    if len(name) <= LONGEST_NAME and not has_capitals:
        return name
    # "+" stands in no other name.
    return f"{name[:KEPT_OF_NAME]}+{blake2b(data, digest_size=16).hexdigest()}"


def _escaped(byte: int) -> str:
    character = bytes([byte])
    return character.decode() if _SAFE.fullmatch(character) else f"={byte:02x}"


def _checked(url: str) -> tuple[SplitResult, dict[str, str]]:
    """Return the parts of a URL and the options of its query; ConfigurationError, without what might be secret."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        endpoint = urlsplit(options.get("endpoint", ""))
    except ValueError:
        raise ConfigurationError("the archive's URL can't be read") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"the archive's URL must begin with {', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]}://")
    if "@" in parts.netloc or "@" in endpoint.netloc or endpoint.query or parts.fragment:
        raise ConfigurationError("the archive's URL has a user or a secret in it: they belong into the environment")
    if parts.scheme == "file" and (parts.netloc or len(parts.path) < 2 or options):
        raise ConfigurationError("the archive's URL must be file:///, then a folder")
    if parts.scheme != "file" and not parts.netloc:
        raise ConfigurationError("the archive's URL lacks the bucket")
    unknown = sorted(set(options) - {"endpoint", "region"})
    if unknown or (options and parts.scheme != "s3"):
        raise ConfigurationError("the archive's URL may have endpoint and region as its query, with s3 alone")
    if "endpoint" in options and (endpoint.scheme not in ("http", "https") or not endpoint.netloc):
        raise ConfigurationError("the endpoint in the archive's URL must begin with http:// or https://")
    return parts, options


def _open(parts: SplitResult, options: dict[str, str]) -> Any:
    try:
        from obstore.store import LocalStore, from_url
    except ImportError:
        raise ConfigurationError(_LACKS_EXTRA) from None
    if parts.scheme == "file":
        try:
            return LocalStore(unquote(parts.path))
        except Exception:  # noqa: BLE001 - the library raises plain ones
            raise FileNotFoundError from None
    given: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "allow_http": options.get("endpoint", "").startswith("http://"),
        },
        "retry_config": {
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=1),
                "base": 2,
            },
        },
    }
    if options:
        given["config"] = options
    try:
        return from_url(f"{parts.scheme}://{parts.netloc}{parts.path}", **given)
    except Exception as error:  # noqa: BLE001 - whatever the library says of a URL or the environment
        raise ConfigurationError(f"the archive can't be opened: {_words_of(error)}") from None


def _words_of(error: Exception) -> str:
    """Return what is safe to say of the library's error: its kind, and the HTTP status if it names one."""
    first = str(error).partition("\n")[0]
    status = _STATUS.search(first.partition("- ")[2])
    return f"{type(error).__name__}{f', HTTP {status[1]}' if status else ''}"


def _sync(folder: Path, file: Path) -> None:
    """Sync a file and the folders down to it."""
    for path in (file, *file.parents):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
        if path == folder:
            return
