"""Measure everything about live jobs on one server."""

from benchmarks.live.rows import Waits, cpu_rows, crowd_rows, latency_rows
from benchmarks.live.scale import QUICK, Scale
from benchmarks.live.stream_rows import stream_rows
from benchmarks.results import Report, Section
from benchmarks.run import machine_setting
from benchmarks.servers import FILE_SETTINGS, running, server_binaries

PACKAGES = ("redis", "hiredis", "uvloop", "uvicorn", "fastapi", "sse-starlette")
NOTES = """\
Each ratio is ours by theirs in one round, all sides in turn, each in a process of its own beside the producer's; shown
are the median of all rounds, the lowest and the highest. CPU is that of the following process, or of the HTTP server,
alone. `XREAD BLOCK` is redis-py with a connection for each follower; the HTTP servers of others follow like that, too.
Where a peer can't keep up, it reads many events at a time, late, which makes each of them cheaper. All followers and
clients were checked to have been given every event once, in order, and the clients every byte of the log."""


def run(scale: Scale) -> tuple[Report, Waits]:
    """Measure, and return the report and what the plot of latencies is made of."""
    waits = Waits()
    setting = {
        **machine_setting(*PACKAGES),
        "Rounds": str(scale.rounds) if scale != QUICK else "one, and so short that the figures say nothing",
    }
    with running(server_binaries()[0], next(iter(FILE_SETTINGS)), tcp=False) as url:
        sections = [
            Section("one follower", latency_rows(url, scale, waits)),
            Section("many followers in one process", cpu_rows(url, scale) + crowd_rows(url, scale)),
            Section("live streams over HTTP", stream_rows(url, scale)),
        ]
    return Report(setting, sections), waits
