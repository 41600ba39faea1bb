"""What the library logs is said as the program says everything."""

import logging

import pytest

from ci_eventstore.cli.output import saying_warnings_of


def test_warnings_are_said_while_something_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line with the program's name; what is less than a warning isn't said, nor what comes later."""
    logger = logging.getLogger("ci_eventstore.writer")
    with saying_warnings_of("ci_eventstore.writer"):
        logger.warning("the store is away,\nthe log waits")
        logger.info("not of interest")
    assert capsys.readouterr().err == "ci-eventstore: the store is away, | the log waits\n"
    assert logger.handlers == []
