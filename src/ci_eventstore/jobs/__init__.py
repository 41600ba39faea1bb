"""A job's state: what may happen to it (`decide`), and what it is after that (`evolve`). Pure functions."""
