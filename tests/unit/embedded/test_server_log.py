"""What is shown of the server's log."""

from pathlib import Path

from ci_eventstore.embedded.start import LARGEST_BYTES, NAME, end_of_log, open_log


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
