"""Live streams over HTTP: how many events a server hands out for a second of its CPU, beside other servers."""

from dataclasses import dataclass

from benchmarks.live.processes import Plan, Process, cpu_seconds, said, start, tell
from benchmarks.live.scale import Audience, Scale
from benchmarks.live.serve import SERVERS
from benchmarks.live.staging import plan_for
from benchmarks.progress import show_progress
from benchmarks.results import Row, Target

OURS, *PEERS = SERVERS
#: A server that is done so late after the last append couldn't keep up.
KEEPS_UP_SECONDS = 1.0
#: What the kernel's clock shows at least, so that a quick run doesn't divide by nothing.
LEAST_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Streamed:
    """What one server took."""

    events: int
    cpu_seconds: float
    #: From the last append to the end of the last stream.
    late_seconds: float

    @property
    def rate(self) -> float:
        """Events that clients got, for each second of the server's CPU."""
        return self.events / max(self.cpu_seconds, LEAST_SECONDS)


def stream_rows(url: str, scale: Scale) -> list[Row]:
    """Measure all servers in turn; that every client got every byte is checked by the clients."""
    rows = []
    for audience in scale.streams:
        rounds = [{name: measure(url, audience, name) for name in SERVERS} for _ in range(scale.rounds)]
        ours = [found[OURS].rate for found in rounds]
        target = Target(20) if audience.has_target else None
        for peer in PEERS:
            is_late = any(found[peer].late_seconds > KEEPS_UP_SECONDS for found in rounds)
            name = f"{peer}, can't keep up" if is_late else peer
            what = f"SSE, {audience.followers} clients, {audience.name}"
            rows.append(Row(what, "events/CPU s", ours, name, [found[peer].rate for found in rounds], target))
    return rows


def measure(url: str, audience: Audience, name: str) -> Streamed:
    """Stream a job to all clients, and end it."""
    show_progress(f"{audience.name}: {name}")
    plan = plan_for(url, audience)
    with start("serve", plan, name) as serving:
        plan = plan_for(url, audience, port=said(serving)["port"])
        with start("listen", plan) as listening:
            said(listening)
            return _measure(plan, serving, listening)


def _measure(plan: Plan, serving: Process, listening: Process) -> Streamed:
    before = cpu_seconds(serving.pid)
    with start("produce", plan) as producing:
        appended_at = said(producing)["ended_at"]
        tell(producing)
        ended_at = said(listening)["ended_at"]
    took = cpu_seconds(serving.pid) - before
    said(listening)
    return Streamed((plan.events + 1) * plan.followers, took, ended_at - appended_at)
