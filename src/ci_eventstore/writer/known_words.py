"""Find known words among those that a text has at multiples of their length, by numpy where that is installed. Pure.

With numpy a text is read at some GB/s, without at some hundred MB/s; the answer is the same. Words are known in the
ordinary alphabet of base64, and found in the URL-safe one, too.
"""

import importlib
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any

#: What `memoryview` and numpy call words, by their length in bytes, and what they are multiplied by for a hash.
_FORMATS: dict[int, tuple[Any, str]] = {8: ("Q", "uint64"), 4: ("I", "uint32")}
_MULTIPLIERS = {8: 0x9E3779B97F4A7C15, 4: 0x9E3779B1}
_BOTH_ALPHABETS = {ord("+"): b"+-", ord("/"): b"/_"}
#: In a text of fewer words than this, numpy isn't quicker.
_FEW_WORDS = 256
#: The table has at least 2 ** 12 places, and two to four for each word: it has to fit into a cache of the CPU.
_LEAST_BITS = 12
_PLACES = 2


def ordinary(text: bytes) -> bytes:
    """Return a text with the ordinary base64 alphabet for the URL-safe one, so that a spelling stands for both."""
    # Half the time of `translate`: these are rare.
    return text.replace(b"-", b"+").replace(b"_", b"/")


class KnownWords:
    """A set of words, and a table that knows nearly all others for unknown.

    The upper bits of a word's hash are its place in the table, where all of its print, 16 other bits, are set.
    """

    def __init__(self, width: int, *, have_capitals: bool = False) -> None:
        """Know words of 4 or of 8 bytes; if all of 8 have a capital letter, others of a text aren't looked at."""
        self._width = width
        self._have_capitals = have_capitals
        #: A dict, since the garbage collector leaves one of numbers alone, but would look at each number of a set.
        self._known: dict[int, None] = {}
        #: The same as a text has them, one after the other, and how many bytes of them are in the table.
        self._words = bytearray()
        self._in_table = 0
        self._table: Any = None
        self._bits = 0

    def add(self, text: bytes) -> None:
        """Know all words of a text."""
        text = ordinary(text)
        words = self._words_of(text)
        self._known.update(dict.fromkeys(words))
        if self._width == 4:
            # Texts are looked up as they are: there are many words of 4 bytes in one, and few in the table.
            self._words += b"".join(_in_all_alphabets(text))
        else:
            self._words += words.cast("B")

    def places_in(self, text: bytes) -> list[int]:
        """Return where in a text known words stand, in order."""
        width, known = self._width, self._known
        if len(text) >= _FEW_WORDS * width and (numpy := loaded_numpy()) is not None:
            return [number * width for number, word in self._candidates(numpy, text) if word in known]
        words = self._words_of(ordinary(text))
        if known.keys().isdisjoint(words):
            return []
        return [number * width for number, word in enumerate(words) if word in known]

    def _words_of(self, text: bytes) -> memoryview:
        whole = memoryview(text)[: len(text) // self._width * self._width]
        return whole.cast(_FORMATS[self._width][0])

    def _candidates(self, numpy: Any, text: bytes) -> Iterable[tuple[int, int]]:
        """Return the numbers of words whose print is in the table, and the words."""
        if self._in_table < len(self._words):
            self._renew_table(numpy)
        values, numbers = numpy.frombuffer(self._words_of(text), dtype=_FORMATS[self._width][1]), None
        if self._have_capitals:
            numbers = _with_capitals(numpy, values)
            values = numpy.frombuffer(ordinary(values.take(numbers).tobytes()), dtype=values.dtype)
        elif self._width == 8:
            values = numpy.frombuffer(self._words_of(ordinary(text)), dtype=values.dtype)
        places, prints = self._hashes(values)
        there = self._table.take(places)
        there &= prints
        found = (there == prints).nonzero()[0]
        known_as = found if numbers is None else numbers.take(found)
        return zip(known_as.tolist(), self._words_of(ordinary(values.take(found).tobytes())), strict=True)

    def _renew_table(self, numpy: Any) -> None:
        bits = max(_LEAST_BITS, (len(self._known) * _PLACES).bit_length())
        if bits > self._bits:
            self._bits, self._table, self._in_table = bits, numpy.zeros(1 << bits, dtype="uint16"), 0
        fresh = numpy.frombuffer(bytes(self._words[self._in_table :]), dtype=_FORMATS[self._width][1])
        self._in_table = len(self._words)
        places, prints = self._hashes(fresh)
        while places.size:
            # Of words with the same place, one is set each time.
            self._table[places] |= prints
            is_missing = self._table.take(places) & prints != prints
            places, prints = places[is_missing], prints[is_missing]

    def _hashes(self, values: Any) -> tuple[Any, Any]:
        """Return the words' places in the table, and their prints, which are never 0."""
        hashes = values * values.dtype.type(_MULTIPLIERS[self._width])
        shift = values.dtype.type(8 * self._width - self._bits)
        if self._width == 8:
            prints = hashes.view("uint16")[1::4] | 1
            hashes >>= shift
            return hashes.view("int64"), prints
        # Both conversions take a third of what numpy needs by itself, for a strided view and in `take`.
        prints = hashes.astype("uint16")
        prints |= 1
        hashes >>= shift
        return hashes.astype("int64"), prints


def _in_all_alphabets(text: bytes) -> Iterator[bytes]:
    """Yield words of 4 bytes with each of their `+` and `/` as it is, and as in URLs."""
    for start in range(0, len(text), 4):
        word = text[start : start + 4]
        if b"+" in word or b"/" in word:
            yield from map(bytes, product(*(_BOTH_ALPHABETS.get(byte, (byte,)) for byte in word)))
        else:
            yield word


def _with_capitals(numpy: Any, words: Any) -> Any:
    """Return the numbers of those words of 8 bytes that have a capital letter: in logs, one in twenty."""
    letters = words.view("uint8") - numpy.uint8(ord("A"))
    # numpy finds those that aren't false in half the time that it needs for those that aren't 0.
    return ((letters < numpy.uint8(26)).view("uint64") != numpy.uint64(0)).nonzero()[0]


@cache
def load_numpy() -> Any:
    """Return numpy, or None where it isn't installed; the first call takes a tenth of a second."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


@cache
def begin_to_load_numpy() -> None:
    """Load numpy in a thread, once in this process: there it holds up an event loop for some 10 ms at most."""
    threading.Thread(target=load_numpy, name="numpy").start()


def loaded_numpy() -> Any:
    """Return numpy if it has been loaded, else None: a text must not wait for it."""
    return load_numpy() if load_numpy.cache_info().currsize else None
