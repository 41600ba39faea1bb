"""An event-sourced store for CI jobs and their live logs, on Redis or Valkey streams."""

from ci_eventstore.errors import StoreError
from ci_eventstore.projection.differences import Difference
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.writer.masking import PreparedSecrets

__all__ = ["Difference", "PreparedSecrets", "RedisJobRepository", "StoreError"]
