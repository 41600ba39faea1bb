"""The picture of the rooms: a box for each, in its layer, and an arrow to each room that it needs directly."""

from collections.abc import Iterator
from xml.sax.saxutils import escape

from tests.unit.structure.rooms import LAYERS, PACKAGE, Graph, layer_of, nearest

WIDTH = 1080
MARGIN = 16
BOX_HEIGHT = 26
#: Between two rows of one layer, and between two layers.
ROW_STEP, LAYER_STEP = 52, 64
MOST_IN_ROW = 10
FONT = 'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12"'
COLOURS = ("#dbeafe", "#d1fae5", "#fef3c7", "#fef3c7", "#f3f4f6", "#fee2e2", "#e5e7eb", "#ede9fe")


def drawn(graph: Graph) -> str:
    """Return an SVG file: rooms import those below them, or beside them in their own layer, and no others."""
    rows = [(number, row) for number in range(len(LAYERS)) for row in _rows(graph, number)]
    places, bottom = dict[str, tuple[float, float, float]](), float(MARGIN)
    for place, (number, row) in enumerate(rows):
        if place:
            bottom += ROW_STEP if rows[place - 1][0] == number else LAYER_STEP
        places.update(_placed(row, bottom))
    height = bottom + BOX_HEIGHT + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" {FONT} role="img">',
            "<title>Rooms of the code, each with arrows to those that it imports</title>",
            f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>',
            '<g fill="none" stroke="#94a3b8" stroke-width="0.8">',
            *_arrows(graph, places),
            "</g>",
            *_boxes(places),
            "</svg>\n",
        ]
    )


def _rows(graph: Graph, number: int) -> Iterator[list[str]]:
    """Yield the rooms of a layer; of the parts, those that need others stand above them."""
    rooms = sorted(
        (room for room in graph if layer_of(room) == number and room not in (PACKAGE, "__main__")),
        key=lambda room: (-_depth(graph, room), room),
    )
    while rooms:
        count = -(-len(rooms) // -(-len(rooms) // MOST_IN_ROW))
        yield sorted(rooms[:count])
        rooms = rooms[count:]


def _depth(graph: Graph, room: str) -> int:
    """Return how many rooms of its own layer lie below one, at most one below the other."""
    beside = [other for other in graph[room] if layer_of(other) == layer_of(room)]
    return 1 + max((_depth(graph, other) for other in beside), default=0)


def _placed(row: list[str], top: float) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield rooms with their boxes: left, top, width."""
    widths = [len(room) * 7.3 + 16 for room in row]
    gap = (WIDTH - 2 * MARGIN - sum(widths)) / (len(row) + 1)
    left = MARGIN + gap
    for room, width in zip(row, widths, strict=True):
        yield room, (round(left, 1), top, round(width, 1))
        left += width + gap


def _arrows(graph: Graph, places: dict[str, tuple[float, float, float]]) -> Iterator[str]:
    for room, (left, top, width) in places.items():
        for target in sorted(nearest(graph, room) & places.keys()):
            to_left, to_top, to_width = places[target]
            start, end, low = left + width / 2, to_left + to_width / 2, top + BOX_HEIGHT
            if to_top > top:
                bend = (low + to_top) / 2
                curve = f"C{start:.1f} {bend:g} {end:.1f} {bend:g} {end:.1f} {to_top:g}"
            else:
                curve = f"Q{(start + end) / 2:.1f} {low + 30:g} {end:.1f} {to_top + BOX_HEIGHT:g}"
            yield f'<path d="M{start:.1f} {low:g} {curve}"/>'


def _boxes(places: dict[str, tuple[float, float, float]]) -> Iterator[str]:
    for room, (left, top, width) in places.items():
        box = f'x="{left:g}" y="{top:g}" width="{width:g}" height="{BOX_HEIGHT}" rx="5"'
        yield f'<rect {box} fill="{COLOURS[layer_of(room)]}" stroke="#475569"/>'
        middle = f'x="{left + width / 2:.1f}" y="{top + 17:g}" text-anchor="middle"'
        yield f'<text {middle} fill="#0f172a">{escape(room)}</text>'
