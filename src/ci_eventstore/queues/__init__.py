"""Queues of jobs, and claims on them that fence."""
