"""How the page copes with the longest logs: `python -m benchmarks.page`."""
