"""Writers, followers and controllers go on by themselves whatever happens to the servers, and lose nothing untold.

One fault on each deployment is for CI; with CI_EVENTSTORE_DEPLOYMENTS=all, as `make test-deployments` has it, all are
tried, and a line about each goes into the file that CI_EVENTSTORE_REPORT names.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployments.breaking import FAULTS, SITES, InapplicableError, Site
from tests.deployments.homes import IS_WHOLE
from tests.deployments.load import Load, open_load
from tests.deployments.report import note

#: What loses writes that only one server had.
LOSING = ("a primary killed", "a primary paused, and back", "a failover asked for")
#: Deployments with replicas, any of which may take over.
REPLICATED = ("sentinel", "cluster-redis7", "cluster-valkey9")
WRITERS = 6

pytestmark = [pytest.mark.slow, pytest.mark.needs("redis7"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=SITES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with SITES[request.param]() as opened:
        opened.name = request.param
        yield opened


def note_fault(
    site: Site, fault: str, durability: str, load: Load | None, findings: dict[str, list[str]] | str
) -> None:
    """Have the documents say what came of a fault."""
    silences = {} if load is None else {kind: silence.longest for kind, silence in load.silence.items()}
    note(
        what="fault",
        deployment=site.name,
        fault=fault,
        durability=durability,
        silences=silences,
        losses=0 if load is None else load.losses,
        findings=findings,
    )


async def check(site: Site, fault: str, folder: Path, durability: str, *, may_lose: bool) -> None:
    """Let a fault happen under load, and compare what everybody was told with what there is."""
    # A store of its own for each fault.
    site.prefix = f"{'abcdefgh'[list(FAULTS).index(fault)]}-{durability}"
    async with open_load(
        site.url, folder, writers=WRITERS, durability=durability, prefix=site.prefix, may_lose=may_lose
    ) as load:
        await load.progress()
        load.begin_silence()
        try:
            await FAULTS[fault](site)
        except InapplicableError as error:
            await load.findings()
            note_fault(site, fault, durability, None, str(error))
            return
        await load.progress()
        silences = {kind: silence.longest for kind, silence in load.silence.items()}
        findings = await load.findings()
        for kind, seconds in silences.items():
            load.silence[kind].longest = seconds
        note_fault(site, fault, durability, load, findings)
        assert findings == {}


@pytest.mark.parametrize("fault", FAULTS if IS_WHOLE else ["a primary killed"])
async def test_nothing_acknowledged_is_lost(site: Site, fault: str, tmp_path: Path) -> None:
    """Everybody goes on; what a replica had too, where there is one, is there once."""
    # With several replicas, Sentinels that are asked for a failover don't wait for the one that they choose.
    may_lose = site.name == "sentinel" and fault == "a failover asked for"
    await check(site, fault, tmp_path, site.durability, may_lose=may_lose)


@pytest.mark.parametrize("fault", LOSING if IS_WHOLE else ["a primary paused, and back"])
@pytest.mark.parametrize("site", REPLICATED, indirect=True, scope="module")
async def test_every_loss_is_told(site: Site, fault: str, tmp_path: Path) -> None:
    """Writes that only the primary had may be lost by a failover: each of their writers is told."""
    await check(site, fault, tmp_path, "server", may_lose=True)


@pytest.mark.parametrize("fault", LOSING if IS_WHOLE else ["a failover asked for"])
@pytest.mark.parametrize("site", ["sentinel"], indirect=True, scope="module")
async def test_what_all_replicas_have_is_never_lost(site: Site, fault: str, tmp_path: Path) -> None:
    """Whichever of them takes over, and though the old primary goes on meanwhile."""
    await check(site, fault, tmp_path, "everywhere", may_lose=False)
