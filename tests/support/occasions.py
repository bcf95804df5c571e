"""Which run of the tests this is."""

import pytest


def is_every_day(config: pytest.Config) -> bool:
    """Whether this is the everyday run: one version of a service will do for most tests."""
    return not any(config.getoption(name) for name in ("--full", "--long", "--tries"))
