"""`python -m benchmarks` runs, and shows every row; what the figures are is not looked at here."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.masking import PIECES
from benchmarks.scale import QUICK
from benchmarks.servers import FILE_SETTINGS, server_binaries

APPENDING = ["append, batches of 500", f"append, {QUICK.tasks} tasks on one job", "append, one task"]
WITHOUT_FILE = [
    f"read {QUICK.long_job:,} events",
    "memory, 80 bytes of text, beyond the payload",
    "memory, 80 bytes of text, MEMORY USAGE beyond it",
    "memory, 80 bytes of text, all",
    "memory, 80 bytes of text, all",
    f"verify {QUICK.verified_jobs} small jobs",
    f"append to many jobs, {QUICK.partitions} partitions",
    f"create jobs that wait, {QUICK.partitions} partitions",
    f"run no-op jobs, {QUICK.partitions} partitions",
    f"first page of a listing, {QUICK.partitions} partitions",
    f"verify {QUICK.verified_jobs} small jobs, {QUICK.partitions} partitions",
    f"idle controller, {QUICK.partitions} partitions",
    "idle controller, one partition",
    f"start, jobs in one of {QUICK.partitions} partitions",
    f"start, jobs in all of {QUICK.partitions} partitions",
]
PACES = ["flat out" if pace.lines_per_second is None else f"{pace.lines_per_second:,} lines/s" for pace in QUICK.paces]
WRITING = [
    *(
        f"LogWriter, flat out, lines of 80 bytes, {how}"
        for how in ("one by one", "one by one, a secret", "64 KiB at a time")
    ),
    *(f"LogWriter, memory, {log}, {pace}" for log in ("generated", "unittest -v") for pace in PACES),
]
MASKED_WRITING = [
    *(f"LogWriter with {QUICK.secrets} secrets, pieces of {size:,} bytes" for size in PIECES),
    "LogWriter, longest call of write or add_secret",
]
#: Beside it there is a line for each library that finds texts and is installed.
MASKING = [f"mask {QUICK.secrets} secrets, pieces of {size:,} bytes" for size in PIECES]
CODEC = [f"{does} an event of {size} bytes" for size in (80, 4096) for does in ("encode", "decode")]


@pytest.mark.slow
def test_a_quick_run_has_all_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every server is measured with and without its append-only file, and all rows are printed and written as JSON."""
    main(["--quick", "--json", str(tmp_path / "report.json")])
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    names = [[row["what"] for row in section["rows"]] for section in report["sections"]]
    with_servers = [APPENDING + WITHOUT_FILE + WRITING + MASKED_WRITING, APPENDING] * len(server_binaries())
    assert names[:-1] == [*with_servers, CODEC]
    assert names[-1][: len(MASKING)] == MASKING
    assert any(what.startswith(f"memory of {QUICK.secrets} secrets") for what in names[-1])
    assert {(line["bytes"], line["level"]) for line in report["compression"]} == {(1024, 1), (1024, 3)}
    for section in report["sections"]:
        assert section["title"] in printed
        assert all(row["what"] in printed and row["ours"] for row in section["rows"])
    assert all(setting in printed for setting in FILE_SETTINGS)
