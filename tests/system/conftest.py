"""Fixtures for the tests of the web page."""

from collections.abc import Iterator

import pytest

from tests.support import operation_page
from tests.support.command import Deviceops
from tests.support.paging import Visitor, signed_in
from tests.support.serving import Server


@pytest.fixture
def visitor(server: Server) -> Iterator[Visitor]:
    """A visitor who may do everything."""
    with signed_in(server) as visitor:
        yield visitor


@pytest.fixture
def roll_out(deviceops_at_server: Deviceops) -> Deviceops:
    """See `operation_page.roll_out`."""
    operation_page.roll_out(deviceops_at_server)
    return deviceops_at_server
