"""What every repository keeps of text: all of it, byte for byte."""

import random

import pytest

from ci_common.models import JobEvent
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, complete, create, fetch, log, texts


def noise(size: int) -> str:
    """Return text that can't be compressed much, the same every time."""
    return random.Random(size).randbytes(size // 2).hex()


def undecodable(raw: bytes) -> str:
    """Return bytes as text the way that a log writer decodes them."""
    return raw.decode("utf-8", "surrogateescape")


TEXTS: dict[str, str] = {
    "empty": "",
    "newline": "\n",
    "no newline": "unfinished",
    "several lines": "one\ntwo\n\nfour",
    "carriage returns": "10 %\r50 %\r100 %\r\n",
    "ANSI colours": "\x1b[1;31mFAILED\x1b[0m \x1b]0;title\x07 \x1b[2K\n",
    "NUL": "a\x00b\x00",
    "all control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "spaces": "  \t  ",
    "every plane": "é ß Ж 漢字 🚒 \U0010ffff \ufffd\ufeff\u2028\u0085",
    "composed and decomposed": "e\u0301 é",
    "right to left": "\u202eabc\u202c שלום",
    "looks like JSON": '{"type": "complete", "success": true}',
    "looks like None": "None",
    "looks like a number": "1e5",
    "looks like a command": "*1\r\n$4\r\nPING\r\n",
    "invalid UTF-8": undecodable(b"caf\xe9 \xff\xfe \xed\xa0\x80 \xf0\x9f\x9a ok\n"),
    "every byte": undecodable(bytes(range(256))),
    "half a character": undecodable("🚒".encode()[:2]),
    "a line of 64 KiB": "x" * 65_535 + "\n",
    "a line of 64 KiB that doesn't compress": noise(65_535) + "\n",
    "a line of 64 KiB of invalid UTF-8": undecodable(b"\xff" * 65_536),
}


class TextContract:
    """Text of any kind and size comes back as given."""

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_text_comes_back_as_given(self, repository: JobRepository, text: str) -> None:
        """However it was appended and however it is read, as a line or beside a result."""
        job_id = await create(repository, log(text))
        await repository.add_event(job_id, log(text))
        await repository.add_events(job_id, [log(text), complete(True, data=text)])
        assert await texts(repository, job_id) == [text] * 4
        assert [event.data for event in (await fetch(repository, job_id)).events] == [text] * 4
        assert [event.data for event in await repository.read_events(job_id, after=2)] == [text] * 2

    async def test_empty_is_not_missing(self, repository: JobRepository) -> None:
        """Empty data and no data are told apart."""
        job_id = await create(repository)
        await repository.add_events(job_id, [log(""), log(None)])
        assert await texts(repository, job_id) == ["", None]

    async def test_escaped_bytes_have_one_spelling(self, repository: JobRepository) -> None:
        """Escaped bytes that together are a character come back as that character: the bytes are the same."""
        job_id = await create(repository)
        split = undecodable("é".encode()[:1]) + undecodable("é".encode()[1:])
        await repository.add_event(job_id, log(split))
        assert await texts(repository, job_id) == ["é"]

    @pytest.mark.parametrize("text", ["x" * 9_999_999 + "\n", noise(9_999_998) + "\n"], ids=["even", "noise"])
    async def test_a_line_of_ten_megabytes(self, repository: JobRepository, text: str) -> None:
        """One event may be as big, and the lines around it are in their place."""
        job_id = await create(repository)
        await repository.add_event(job_id, log("before\n"))
        await repository.add_event(job_id, log(text))
        await repository.add_event(job_id, log("after\n"))
        stored = await texts(repository, job_id)
        assert [len(each or "") for each in stored] == [7, len(text), 6]
        assert stored == ["before\n", text, "after\n"]

    async def test_many_long_lines(self, repository: JobRepository) -> None:
        """A hundred lines of 64 KiB in one call come back in order, whole and by pages."""
        job_id = await create(repository)
        events = [log(f"{number} {'x' * 65_000}\n", timestamp=at(number)) for number in range(100)]
        await repository.add_events(job_id, events)
        assert await repository.get_events_since(job_id, 0) == events
        seen: list[JobEvent] = []
        while page := await repository.read_events(job_id, after=len(seen), limit=30):
            seen += page
        assert seen == events

    async def test_a_reason_may_be_any_text(self, repository: JobRepository) -> None:
        """The reason for cancelling a job is kept as it is."""
        job_id = await create(repository)
        await repository.cancel_job(job_id, "\x1b[31mжди\x00\n\udcff")
        assert (await texts(repository, job_id))[0] == "[cancelled: \x1b[31mжди\x00\n\udcff]\n"
