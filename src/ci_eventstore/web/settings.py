"""What an operator may choose of the web server."""

import re
from dataclasses import dataclass
from pathlib import Path

from ci_common.validation import check_id, check_texts
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.setting_checks import check_number

#: A shorter one would keep each stream busy with nothing.
SHORTEST_HEARTBEAT_SECONDS = 0.01


_ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """The settings of the web server; ConfigurationError for what can't be."""

    #: Where jobs' zip files are kept, for controllers to find under the same path; None: none are taken.
    project_folder: Path | None = None
    #: The most that a zip file may have.
    max_project_bytes: int = 100 * 1024 * 1024
    #: The queues that users may put jobs into; None: any. Whoever may see all jobs isn't bound to it.
    queues: frozenset[str] | None = frozenset({"default"})
    #: Other sites whose pages may ask with a key, such as https://ci.example, or "*"; sessions are for own pages.
    cors_origins: tuple[str, ...] = ()
    #: One user may have at most this many streams open in this process.
    max_streams_per_user: int = 100
    #: How often a stream with nothing to send sends a comment, and the server looks whether it may go on.
    heartbeat_seconds: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        check_number(self, "max_project_bytes", 1, is_whole=True)
        check_number(self, "max_streams_per_user", 1, is_whole=True)
        check_number(self, "heartbeat_seconds", SHORTEST_HEARTBEAT_SECONDS)
        for queue in check_texts("queues", self.queues or ()):
            check_id("queue", queue)
        for origin in check_texts("cors_origins", self.cors_origins):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigurationError(f"cors_origins={origin!r} must be like https://ci.example:8443, or *")
        if self.project_folder is not None and not isinstance(self.project_folder, Path):
            raise ConfigurationError(f"project_folder={self.project_folder!r} must be a Path")
        if self.project_folder is not None and not self.project_folder.is_absolute():
            raise ConfigurationError(f"project_folder={str(self.project_folder)!r} must be an absolute path")
