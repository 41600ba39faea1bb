"""A job's history played again: its records at a pace, its state as of then, and its log in others' formats."""
