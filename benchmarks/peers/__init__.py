"""Python's job queues beside this one: `make bench-peers`."""
