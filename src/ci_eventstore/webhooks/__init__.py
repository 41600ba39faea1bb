"""Webhooks: what happens to jobs, sent to the addresses of those who asked for it."""
