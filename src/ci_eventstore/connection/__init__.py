"""The Redis or Valkey server: where it is, how it is reached, what it must be. The only place that knows redis-py."""
