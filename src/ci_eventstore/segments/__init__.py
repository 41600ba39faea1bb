"""Segments: what becomes of an ended job's stream. docs/format.md has their bytes."""
