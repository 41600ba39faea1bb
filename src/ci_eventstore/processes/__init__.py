"""Commands as processes, each in a group of its own."""
