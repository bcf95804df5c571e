"""While PostgreSQL is frozen, the HTTP API answers that it is away, and afterwards as ever."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.services import PrivatePostgreSQL
from tests.support.serving import DEVICES, OF_OPERATION, PATH, REPORT, Server, announce, events, refused, serving

TIMEOUT = 1
"""Seconds that the API gives the database."""
A_FEW = 5
"""Seconds beyond in which an answer must have come: some are spent on the connection that is given up."""
CALLERS = 12
"""At a time: more than there are connections."""


@pytest.fixture
def server(tmp_path: Path, fragile_database: str) -> Iterator[Server]:
    """A server with an operation."""
    settings = {"database_url": fragile_database, "database_timeout": str(TIMEOUT)}
    with serving(Deviceops(tmp_path, settings)) as server:
        with server.client() as client:
            announce(client, DEVICES)
        yield server


async def test_a_frozen_database_is_answered_for(server: Server, postgresql: PrivatePostgreSQL) -> None:
    async with server.async_client() as client:

        async def call(number: int) -> httpx.Response:
            asked = time.monotonic()
            response = await (client.put(PATH, json=REPORT) if number % 2 else client.get(OF_OPERATION))
            assert time.monotonic() - asked < TIMEOUT + A_FEW
            return response

        async with aclosing(events(client, f"{OF_OPERATION}events")) as following:
            await anext(following)
            with postgresql.frozen():
                for response in await asyncio.gather(*map(call, range(CALLERS))):
                    refused(response, httpx.codes.SERVICE_UNAVAILABLE)
                    assert int(response.headers["Retry-After"]) > 0
            for response in await asyncio.gather(*map(call, range(CALLERS))):
                assert response.status_code == httpx.codes.OK, response.text
            async with asyncio.timeout(A_FEW):
                while _successes(await anext(following)) != 1:
                    pass
    assert server.stop() == 0
    assert all(line["level"] != "error" for line in server.log)


def _successes(event: dict[str, Any]) -> object:
    return event["operation_stats"]["device_operation_statuses_count"]["success_device_count"]
