"""Controllers: processes that claim jobs and run them."""

from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.command_handler import CommandHandler
from ci_eventstore.controllers.controller import Controller, ControllerSettings
from ci_eventstore.controllers.machine import WorkFolder

__all__ = ["ClaimedJob", "CommandHandler", "Controller", "ControllerSettings", "WorkFolder"]
