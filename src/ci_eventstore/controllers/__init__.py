"""Controllers: processes that claim jobs and run them."""

from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.controller import Controller, ControllerSettings

__all__ = ["ClaimedJob", "Controller", "ControllerSettings"]
