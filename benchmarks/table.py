"""Show a report as text."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import median

from benchmarks.results import Compression, Report, Row

_HEADINGS = ("", "ours", "beside", "theirs", "ratio", "min..max", "target", "")
_COMPRESSION_HEADINGS = ("text", "bytes", "level", "compressed to", "µs/KiB to write", "to read")
_NOTES = """\
Each ratio is ours by theirs in one round, both sides in turn; shown are the median of all rounds, the lowest and the
highest, and the median of either side's figures. `XADD` stores the same payloads and so encodes its events inside the
clock, with the same codec. `xrange` is the client's only: its entries stay encoded. The targets are those of design
§12; they are set with the append-only file off."""


def render(report: Report, notes: str = _NOTES) -> str:
    """Return the whole report, with what is to be known of its figures."""
    return "\n".join(_lines(report, notes))


def _lines(report: Report, notes: str) -> Iterator[str]:
    yield from (f"{name}: {value}" for name, value in report.setting.items())
    rows = [_HEADINGS] + [_cells(row) for section in report.sections for row in section.rows]
    aligned = iter(align(rows, right=(1, 3, 4, 5)))
    headings = next(aligned)
    for section in report.sections:
        yield ""
        yield section.title
        yield headings
        yield from (next(aligned) for _ in section.rows)
    if report.compression:
        yield ""
        yield "Zstandard"
        yield from _compression(report.compression)
    yield ""
    yield notes
    yield ""
    yield from _verdict(report)


def _verdict(report: Report) -> Iterator[str]:
    missed = report.missed()
    total = sum(row.target is not None for section in report.sections for row in section.rows)
    if not missed:
        yield f"All {total} targets are met."
    for section, row in missed:
        yield f"MISSED: {row.what}, {section.title}: {median(row.ratios or row.ours):.2f}, to reach {row.target}"


def _cells(row: Row) -> tuple[str, ...]:
    ratios = row.ratios
    return (
        f"  {row.what}",
        figure(row.ours, row.unit),
        row.peer,
        figure(row.theirs, row.unit),
        f"{median(ratios):.2f}" if ratios else "",
        f"{min(ratios):.2f}..{max(ratios):.2f}" if len(ratios) > 1 else "",
        "" if row.target is None else str(row.target),
        "" if row.target is None else "MISSED" if row.is_missed else "met",
    )


def figure(values: Sequence[float], unit: str) -> str:
    """Return the median of figures with its unit; "" for none."""
    if not values:
        return ""
    value = median(values)
    digits = 0 if value >= 1000 else 1 if value >= 10 else 3
    return f"{value:,.{digits}f} {unit}"


def _compression(lines: Sequence[Compression]) -> list[str]:
    rows: list[tuple[str, ...]] = [_COMPRESSION_HEADINGS]
    for _, group in groupby(lines, key=lambda line: line.text):
        rows += [
            (
                line.text,
                f"{line.bytes:,}",
                str(line.level),
                f"{line.share:.3f}",
                f"{line.write_us_per_kib:.2f}",
                f"{line.read_us_per_kib:.2f}",
            )
            for line in group
        ]
    return [f"  {line}" for line in align(rows, right=(1, 2, 3, 4, 5))]


def align(rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """Return rows as lines, their columns below each other; those at the places given end there."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
