"""Find known words among those that a text has at multiples of their length, by numpy where that is installed. Pure.

With numpy a text is read at some GB/s, without at some hundred MB/s; the answer is the same.
"""

import importlib
from collections.abc import Iterable
from functools import cache
from typing import Any

#: What `memoryview` and numpy call words, by their length in bytes, and what they are multiplied by for two hashes.
_FORMATS: dict[int, tuple[Any, str]] = {8: ("Q", "uint64"), 4: ("I", "uint32")}
_MULTIPLIERS = {8: (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F), 4: (0x9E3779B1, 0x85EBCA77)}
#: In a text of fewer words than this, numpy isn't quicker.
_FEW_WORDS = 256
#: The table has at least so many bits in its index, and so many places for each word.
_LEAST_BITS = 16
_PLACES = 16


class KnownWords:
    """A set of words, and a table of those hashes that they have."""

    def __init__(self, width: int) -> None:
        """Know words of 4 or of 8 bytes."""
        self._width = width
        self._known: set[int] = set()
        #: Words that aren't in the table yet.
        self._fresh: list[int] = []
        self._table: Any = None
        self._bits = 0

    def add(self, text: bytes) -> None:
        """Know all words of a text."""
        words = self._words_of(text)
        self._known.update(words)
        self._fresh += words

    def places_in(self, text: bytes) -> list[int]:
        """Return where in a text known words stand, in order."""
        width, known, words = self._width, self._known, self._words_of(text)
        if len(words) >= _FEW_WORDS and (numpy := load_numpy()) is not None:
            return [number * width for number, word in self._candidates(numpy, words) if word in known]
        if known.isdisjoint(words):
            return []
        return [number * width for number, word in enumerate(words) if word in known]

    def _words_of(self, text: bytes) -> memoryview:
        whole = memoryview(text)[: len(text) // self._width * self._width]
        return whole.cast(_FORMATS[self._width][0])

    def _candidates(self, numpy: Any, words: memoryview) -> Iterable[tuple[int, int]]:
        """Return the numbers of words both of whose hashes are known, and the words."""
        if self._fresh:
            self._renew_table(numpy)
        values = numpy.frombuffer(words, dtype=_FORMATS[self._width][1])
        first, second = _MULTIPLIERS[self._width]
        found = numpy.flatnonzero(self._table.take(self._hashes(values, first)))
        found = found[self._table.take(self._hashes(values.take(found), second))]
        return zip(found.tolist(), values.take(found).tolist(), strict=True)

    def _renew_table(self, numpy: Any) -> None:
        bits = max(_LEAST_BITS, (len(self._known) * _PLACES).bit_length())
        if bits > self._bits:
            self._bits, self._table, self._fresh = bits, numpy.zeros(1 << bits, dtype=numpy.bool_), list(self._known)
        values = numpy.array(self._fresh, dtype=_FORMATS[self._width][1])
        for multiplier in _MULTIPLIERS[self._width]:
            self._table[self._hashes(values, multiplier)] = True
        self._fresh = []

    def _hashes(self, values: Any, multiplier: int) -> Any:
        """Return the upper bits of the products, which depend on all bits of the words."""
        hashes = values * values.dtype.type(multiplier)
        hashes >>= values.dtype.type(8 * self._width - self._bits)
        return hashes.view(f"int{8 * self._width}")


@cache
def load_numpy() -> Any:
    """Return numpy, or None where it isn't installed; the first call takes a tenth of a second."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None
