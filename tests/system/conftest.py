"""Fixtures for the tests of servers and of their web page."""

from collections.abc import Iterator

import pytest

from tests.support import operation_page
from tests.support.command import Deviceops
from tests.support.paging import Visitor, signed_in
from tests.support.serving import Server, serving


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


@pytest.fixture
def own_server(deviceops: Deviceops) -> Iterator[Server]:
    """A server of the test's own; once on each kind of database."""
    with serving(deviceops) as server:
        yield server


@pytest.fixture
def on_sqlite(deviceops_on_sqlite: Deviceops) -> Iterator[Server]:
    """The same on SQLite, for what no database changes."""
    with serving(deviceops_on_sqlite) as server:
        yield server


@pytest.fixture
def url(deviceops_at_server: Deviceops) -> str:
    """The URL of the server's database."""
    return deviceops_at_server.settings["database_url"]
