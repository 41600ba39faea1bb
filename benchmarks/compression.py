"""What compressing saves and costs by size and level: why the codec begins at its threshold, with its level."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import zstandard

from benchmarks.results import Compression
from benchmarks.scale import Scale
from benchmarks.texts import generated_log, real_log

LEVELS = (1, 3)


def compression_lines(scale: Scale) -> list[Compression]:
    """Measure pieces of a generated and of a real log, at each size and level."""
    logs = {"generated": generated_log(max(scale.text_bytes) * scale.texts), "unittest -v": real_log()}
    return [
        _measure(name, _pieces(log.encode(), size, scale.texts), level)
        for name, log in logs.items()
        for size in scale.text_bytes
        for level in LEVELS
        if len(log) >= size
    ]


def _pieces(log: bytes, size: int, count: int) -> list[bytes]:
    """Return up to `count` pieces of a log, spread over it."""
    wanted = min(count, len(log) // size)
    step = len(log) // wanted
    return [log[place * step : place * step + size] for place in range(wanted)]


def _measure(name: str, pieces: Sequence[bytes], level: int) -> Compression:
    compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
    packed = [compressor.compress(piece) for piece in pieces]
    kib = len(pieces[0]) / 1024
    return Compression(
        text=name,
        bytes=len(pieces[0]),
        level=level,
        share=sum(map(len, packed)) / sum(map(len, pieces)),
        write_us_per_kib=_microseconds(compressor.compress, pieces) / kib,
        read_us_per_kib=_microseconds(decompressor.decompress, packed) / kib,
    )


def _microseconds(function: Callable[[bytes], bytes], pieces: Sequence[bytes], rounds: int = 9) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for piece in pieces:
            function(piece)
        times.append((time.perf_counter() - started) / len(pieces))
    return median(times) * 1e6
