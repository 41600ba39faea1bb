"""How large the code is, beside what the house style aims at, and beside a commit: `make sizes AGAINST=COMMIT`."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.against.checkouts import commit_of, extract
from benchmarks.table import align
from tests.unit.structure.imports import all_imports, modules_run_by
from tests.unit.structure.rooms import circles, folders_of
from tests.unit.structure.source import PACKAGES, ROOT, Module, is_public, parse

MODULES = 110
MEDIAN_LINES = range(100, 151)
MODULE_LINES = 400
FUNCTION_LINES = 50
CLASS_LINES = 250
PUBLIC_METHODS = 15
HEADINGS = (
    "",
    "modules",
    "median / max lines",
    f"functions > {FUNCTION_LINES}",
    "biggest class, methods (public)",
    "import cycles (of packages)",
    "lines of Python",
    "of Lua",
)
AIM = (
    "aim",
    f"<= {MODULES}",
    f"{MEDIAN_LINES[0]}-{MEDIAN_LINES[-1]} / <= {MODULE_LINES}",
    "0",
    f"<= {CLASS_LINES}, <= {PUBLIC_METHODS} public",
    "0 (0)",
    "less",
    "less",
)


@dataclass(frozen=True, slots=True)
class BigClass:
    """The class with the most lines, the repository contract's aside."""

    name: str
    lines: int
    methods: int
    public: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is counted."""

    modules: int
    median_lines: float
    most_lines: int
    long_functions: int
    biggest: BigClass
    cycles: int
    package_cycles: int
    python_lines: int
    lua_lines: int

    def cells(self, title: str) -> tuple[str, ...]:
        """Return a line of the table."""
        biggest = self.biggest
        return (
            title,
            f"{self.modules}",
            f"{self.median_lines:g} / {self.most_lines}",
            f"{self.long_functions}",
            f"{biggest.lines}, {biggest.methods} ({biggest.public}) {biggest.name}",
            f"{self.cycles} ({self.package_cycles})",
            f"{self.python_lines:,}",
            f"{self.lua_lines:,}",
        )

    def shortfalls(self) -> Iterator[str]:
        """Say what isn't as the house style wants it."""
        if self.modules > MODULES:
            yield f"{self.modules - MODULES} modules too many"
        if self.median_lines not in MEDIAN_LINES:
            yield f"the median module has {self.median_lines:g} lines"
        if self.most_lines > MODULE_LINES:
            yield f"a module has {self.most_lines} lines"
        if self.long_functions:
            yield f"{self.long_functions} functions are too long"
        if self.biggest.lines > CLASS_LINES:
            yield f"{self.biggest.name} has {self.biggest.lines} lines"
        if self.biggest.public > PUBLIC_METHODS:
            yield f"{self.biggest.name} has {self.biggest.public} public methods"
        if self.cycles or self.package_cycles:
            yield "imports go in a circle"


def measure(source: Path) -> Sizes:
    """Count what stands in a folder `src`."""
    paths = [path for package in PACKAGES for path in sorted((source / package).rglob("*.py"))]
    modules = [parse(path, source) for path in paths]
    lengths = [len(path.read_text().splitlines()) for path in paths]
    functions, imports = list(_functions(modules)), all_imports(modules)
    graph: dict[str, set[str]] = {}
    for found in imports:
        graph.setdefault(found.importer.name, set()).update(modules_run_by(found))
    return Sizes(
        modules=len(modules),
        median_lines=median(lengths),
        most_lines=max(lengths),
        long_functions=sum(_lines(function) > FUNCTION_LINES for function in functions),
        biggest=max(_classes(modules), key=lambda found: found.lines, default=BigClass("none", 0, 0, 0)),
        cycles=len(circles(graph)),
        package_cycles=sum(len(circles(rooms)) for rooms in folders_of(imports).values()),
        python_lines=sum(lengths),
        lua_lines=sum(len(path.read_text().splitlines()) for path in source.rglob("*.lua")),
    )


def _functions(modules: list[Module]) -> Iterator[ast.stmt]:
    for module in modules:
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def _classes(modules: list[Module]) -> Iterator[BigClass]:
    for module in modules:
        for node in module.nodes:
            if isinstance(node, ast.ClassDef) and not node.name.endswith("JobRepository"):
                names = {part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
                yield BigClass(node.name, _lines(node), len(names), sum(map(is_public, names)))


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def main(*commits: str) -> None:
    """Print the table, and what falls short of it."""
    now = measure(ROOT / "src")
    rows = [HEADINGS, *(_at(commit) for commit in commits), now.cells("now"), AIM]
    short = "; ".join(now.shortfalls())
    lines = [*align(rows, right=(1, 2, 3, 6, 7)), "", f"Falls short: {short}." if short else "Nothing falls short."]
    sys.stdout.write("\n".join(lines) + "\n")


def _at(commit: str) -> tuple[str, ...]:
    with TemporaryDirectory(prefix="ci-sizes-") as folder:
        extract(commit_of(commit), Path(folder))
        return measure(Path(folder, "src")).cells(commit)


if __name__ == "__main__":
    main(*sys.argv[1:])
