"""`python -m benchmarks.cluster`: each step runs, and the table has all of them."""

from dataclasses import replace

import pytest

from benchmarks.cluster import QUICK, SHOWN, STEPS, Figures, measure, render
from tests.deployments import cluster_of

FIGURES = Figures(
    operations=1000,
    client_seconds=0.5,
    server_seconds=[0.2, 0.1],
    connections=[4, 6],
    commands=5000,
    received_bytes=700_000,
    sent_bytes=20_000,
    file_bytes=300_000,
)


def test_the_table_has_every_step_and_figure() -> None:
    """Of the rounds it shows medians, and of each round's ratio."""
    slower = replace(FIGURES, client_seconds=1.0, commands=0)
    table = render({what: [[FIGURES, FIGURES], [slower, FIGURES]] for what in STEPS}, replace(QUICK, rounds=2))
    lines = table.splitlines()
    assert [line for line in lines if line in [step.title for step in STEPS.values()]] == [
        step.title for step in STEPS.values()
    ]
    assert len(lines) == 3 + len(STEPS) * (1 + len(SHOWN))
    assert lines[4].split()[-4:] == ["500", "750", "1.50", "1.00..2.00"]


@pytest.mark.slow
async def test_each_step_runs() -> None:
    """A client of a cluster of one node takes all steps, and each does what it says."""
    scale = replace(QUICK, clients=1)
    async with cluster_of(masters=1, replicas=0) as cluster:
        found = {what: measure(what, cluster, scale) for what in STEPS}
    # An end comes to each follower, too.
    assert {what: figures.operations for what, figures in found.items()} == {
        "append": scale.appended,
        "run": scale.run,
        "follow": scale.followed + 16,
        "crowd": scale.followed + 16,
        "idle": scale.idle_seconds,
    }
    assert all(figures.commands and figures.connections[0] for figures in found.values())
