"""Routes of logs: as text, by lines, searched and outlined."""
