"""What the store costs beside plain redis-py, measured in one run: `make bench`, or `python -m benchmarks --help`."""
