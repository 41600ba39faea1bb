"""What all tests share."""

pytest_plugins = [
    "pytester",
    "tests.deployments.homes",
    "tests.needs",
    "tests.no_skips_in_ci",
    "tests.examples",
    "tests.garbage",
    "tests.order",
    "tests.surrogates",
]
