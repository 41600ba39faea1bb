"""The wire format of a job's stream."""

from httpx_sse import SSEError  # noqa: F401
