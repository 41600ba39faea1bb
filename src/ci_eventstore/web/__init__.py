"""The web server: jobs, their logs and their live streams over HTTP. It needs the extra `server`."""

from ci_eventstore.web.app import JobsRouter, create_app, create_router
from ci_eventstore.web.authentication import EVERYTHING, Authenticate, this_machine_sees_everything
from ci_eventstore.web.context import WebSettings

__all__ = [
    "EVERYTHING",
    "Authenticate",
    "JobsRouter",
    "WebSettings",
    "create_app",
    "create_router",
    "this_machine_sees_everything",
]
