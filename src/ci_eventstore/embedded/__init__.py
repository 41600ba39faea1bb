"""The server of `embedded://PATH`: shared by all processes that use PATH, gone with the last of them."""

from ci_eventstore.embedded.server import EmbeddedConnection, EmbeddedServer

__all__ = ["EmbeddedConnection", "EmbeddedServer"]
