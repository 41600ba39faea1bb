"""What is sent to the server for each script: its libraries, as far as it uses them, and nothing that isn't there."""

import pkgutil
import re
import struct
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa import lua51  # type: ignore[import-untyped]

import ci_eventstore
from ci_eventstore.connection.scripts import DRIFT, ClockReading, Script, load_libraries, with_lists

SRC = Path(ci_eventstore.__file__).parent
SCRIPTS = sorted(path for path in SRC.rglob("*.lua") if path.parent.name != "lua" and path.name != "deadline.lua")
#: What a server has for scripts, and this project uses.
GLOBALS = {
    *("redis", "KEYS", "ARGV", "string", "table", "math", "cjson"),
    *("tonumber", "tostring", "type", "unpack", "pairs", "ipairs", "next", "pcall", "error", "select"),
}
LIBRARY_NAMES = sorted(path.stem for path in (SRC / "lua").glob("*.lua"))
GETGLOBAL, SETGLOBAL, STRING = 5, 7, 4


@cache
def scripts() -> dict[str, Script]:
    """Return all scripts that the package's modules load, by their names."""
    modules = [import_module(module.name) for module in pkgutil.walk_packages([str(SRC)], "ci_eventstore.")
               if not module.name.endswith("__main__")]  # fmt: skip
    return {found.name: found for module in modules for found in vars(module).values() if isinstance(found, Script)}


def source_of(path: Path) -> str:
    """Return what the server is sent."""
    return scripts()[path.stem].source


def globals_of(source: str) -> set[str]:
    """Return the names that a script looks for outside itself, as the compiler finds them."""
    lua = lua51.LuaRuntime(encoding=None)
    code = lua.execute(b"local source = ... return string.dump(assert(loadstring(source)))", source.encode())
    return set(_Code(code[12:]).globals())


class _Code:
    """Lua 5.1's compiled code, without its head, on a machine of 64 bits."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.place = 0

    def take(self, size: int) -> bytes:
        self.place += size
        return self.code[self.place - size : self.place]

    def number(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def text(self) -> str:
        return self.take(int.from_bytes(self.take(8), "little"))[:-1].decode("latin-1")

    def globals(self) -> Iterator[str]:
        """Read one function, and those in it."""
        self.text()
        self.take(12)
        instructions = struct.unpack(f"<{(size := self.number())}I", self.take(4 * size))
        constants = [self._constant() for _ in range(self.number())]
        for instruction in instructions:
            if instruction & 63 in (GETGLOBAL, SETGLOBAL):
                yield constants[instruction >> 14]
        for _ in range(self.number()):
            yield from self.globals()
        self.take(4 * self.number())
        for _ in range(self.number()):
            self.text()
            self.take(8)
        for _ in range(self.number()):
            self.text()

    def _constant(self) -> str:
        kind = self.take(1)[0]
        if kind == STRING:
            return self.text()
        self.take({0: 0, 1: 1, 3: 8}[kind])
        return ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_uses_what_is_there(path: Path) -> None:
    """A function that is out of reach where it is called, on whatever way, would be looked for among the server's."""
    assert globals_of(source_of(path)) <= GLOBALS


def test_what_is_out_of_reach_is_found() -> None:
    """Also where it is in a function, or in another block."""
    assert globals_of("local function f() return g() end do local h = f end return h") == {"g", "h"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_has_no_function_that_it_does_not_use(path: Path) -> None:
    """Each is made anew for each call. Comments, which might name one, aren't sent."""
    source = source_of(path)
    assert "--" not in source
    for name in re.findall(r"local function (\w+)", source):
        used, defined = len(re.findall(rf"\b{name}\b", source)), len(re.findall(rf"function {name}\b", source))
        assert used > defined, name


@pytest.mark.parametrize("name", LIBRARY_NAMES)
def test_each_library_is_used(name: str) -> None:
    """And each of its functions, by a script or by another library."""
    sources = {path: source_of(path) for path in SCRIPTS}
    for function in re.findall(r"^local function (\w+)", load_libraries(name), re.MULTILINE):
        assert any(f"local function {function}(" in source for source in sources.values()), function


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_uses_all_that_it_is_called_with(path: Path) -> None:
    """What nobody reads isn't sent."""
    names = scripts()[path.stem].names
    text = re.sub("--.*", "", path.read_text())
    for library in re.findall("-- Libraries: (.*)", path.read_text()):
        text += load_libraries(library)
    text = with_lists(text, scripts()[path.stem].constants)
    for name in names.fields if names else []:
        assert re.search(rf"\b{re.escape(name)}\b", text) or f"{name.split('.')[0]}.places()" in text, name


seconds = st.floats(0, 300)


@given(
    offset=st.integers(-(10**12), 10**12),
    to_server=seconds,
    back=seconds,
    later=seconds,
    patience=st.floats(0, 60),
    drift=st.floats(-DRIFT, DRIFT),
)
def test_a_deadline_gives_the_time_asked_for_and_is_past_when_it_says_so(
    offset: int, to_server: float, back: float, later: float, patience: float, drift: float
) -> None:
    """Whenever the server read its clock on the way, and however that clock drifts, both bounds hold."""

    def server_ms(local: float) -> int:
        return offset + int((local - to_server) * (1 + drift) * 1000)

    reading = ClockReading(offset, 0.0, to_server + back)
    now = to_server + back + later
    deadline = reading.deadline_ms(now, patience)
    assert server_ms(now + patience) <= deadline + 1
    waited = now + reading.seconds_until_past(deadline, now)
    assert server_ms(waited) >= deadline
