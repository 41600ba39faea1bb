"""Rooms of the house: what stands in a folder, which of it imports which, and the picture of that."""

from collections.abc import Iterable, Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter

from tests.unit.structure.imports import Import

#: From the top; a room imports what stands in its own layer or in one below. A room that isn't named is a part.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__main__", "cli"}),
    frozenset({"web", "controllers", "history"}),
    frozenset({"repository", "job_writer"}),
    frozenset({"engine", "engines"}),
    frozenset(),
    frozenset({"connection"}),
    frozenset({"embedded", "errors", "job_fields", "keys", "members", "tasks"}),
    frozenset({"ci_common"}),
)
PARTS = LAYERS.index(frozenset())
#: They stand beside each other, and no one of them needs another.
APART = LAYERS[1]
#: The package itself: its `__init__.py` offers what stands at the top.
PACKAGE = "ci_eventstore"

#: Rooms, each with those that it imports.
Graph = Mapping[str, frozenset[str]]


def child_of(folder: str, module: str) -> str | None:
    """Return which room of a folder a module is or lies in; None if it is in none, or is the folder's own module."""
    return module.removeprefix(f"{folder}.").partition(".")[0] if module.startswith(f"{folder}.") else None


def room_of(module: str) -> str:
    """Return the room of a module: a folder or module of `ci_eventstore`, that package itself, or `ci_common`."""
    return child_of(PACKAGE, module) or module.partition(".")[0]


def layer_of(room: str) -> int:
    """Return how far down a room stands, counted from the top."""
    return next((number for number, rooms in enumerate(LAYERS) if room in rooms), PARTS)


def is_downward(importer: str, target: str) -> bool:
    """Return whether a room may import another."""
    if importer in (target, PACKAGE):
        return True
    if importer in APART and target in APART:
        return False
    return target != PACKAGE and layer_of(importer) <= layer_of(target)


def graph_of(imports: Iterable[Import]) -> Graph:
    """Return all rooms, each with those that it imports."""
    graph: dict[str, set[str]] = {}
    for found in imports:
        importer, target = room_of(found.importer.name), room_of(found.target)
        others = graph.setdefault(importer, set())
        if found.root in (PACKAGE, "ci_common") and importer != target:
            others.add(target)
    return {room: frozenset(others) for room, others in graph.items()}


def cycles(imports: Iterable[Import]) -> Iterator[str]:
    """Yield one cycle for each folder whose rooms, be they modules or folders, import each other."""
    for folder, graph in folders_of(imports).items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            yield f"{folder}: {' → '.join(reversed(error.args[1]))}"


def folders_of(imports: Iterable[Import]) -> Mapping[str, Mapping[str, set[str]]]:
    """Return for each folder which of its rooms, be they modules or folders, import which others of them."""
    graphs: dict[str, dict[str, set[str]]] = {}
    for found in imports:
        parts = found.importer.name.split(".")
        for length in range(1, len(parts)):
            folder = ".".join(parts[:length])
            importer, target = child_of(folder, found.importer.name), child_of(folder, found.target)
            if importer and target and importer != target:
                graphs.setdefault(folder, {}).setdefault(importer, set()).add(target)
    return graphs


def circles(graph: Mapping[str, Set[str]]) -> set[frozenset[str]]:
    """Return the largest groups whose members all reach each other; what reaches nothing but itself is none."""
    reached = {room: _reached(graph, room) for room in graph}
    return {
        frozenset(other for other in below if room in reached.get(other, frozenset()))
        for room, below in reached.items()
        if room in below
    }


def picture(graph: Graph) -> str:
    """Return a line for each room and what it imports, from the top; what is reached through another is left out."""
    shown = sorted(
        (room for room in graph if room not in (PACKAGE, "__main__")), key=lambda room: (layer_of(room), room)
    )
    width = max(map(len, shown))
    lines, last = list[str](), -1
    for room in shown:
        if last not in (-1, layer_of(room)):
            lines.append("")
        last = layer_of(room)
        targets = sorted(nearest(graph, room), key=lambda target: (layer_of(target), target))
        lines.append(f"    {room:{width}} ──▶ {', '.join(targets) or 'standard library'}")
    return "\n".join(lines)


def nearest(graph: Graph, room: str) -> frozenset[str]:
    """Return the rooms that a room imports and reaches through no other one that it imports."""
    return graph[room] - frozenset().union(*(_reached(graph, target) for target in graph[room]))


def _reached(graph: Mapping[str, Set[str]], room: str) -> frozenset[str]:
    """Return all rooms below one, through however many others."""
    found, waiting = set[str](), set(graph.get(room, ()))
    while waiting:
        found |= waiting
        waiting = {below for above in waiting for below in graph.get(above, ())} - found
    return frozenset(found)
