"""What all tests share."""

pytest_plugins = ["tests.no_skips_in_ci"]
