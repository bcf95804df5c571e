"""While PostgreSQL is frozen, the HTTP API answers that it is away, and afterwards as ever."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.services import PrivatePostgreSQL
from tests.support.serving import DEVICES, OF_OPERATION, PATH, REPORT, Server, announce, events, refused, serving

TIMEOUT = 1
"""Seconds that the API gives the database."""
PATIENCE = 60
"""Seconds until what was away is followed again."""
A_FEW = 5
"""Seconds beyond in which an answer must have come: some are spent on the connection that is given up."""
CALLERS = 12
"""At a time: more than there are connections."""


@pytest.fixture
def deviceops(tmp_path: Path, fragile_database: str) -> Deviceops:
    """The command on a database that may be killed."""
    return Deviceops(tmp_path, {"database_url": fragile_database, "database_timeout": str(TIMEOUT)})


@pytest.fixture
def server(deviceops: Deviceops) -> Iterator[Server]:
    """A server with an operation."""
    with serving(deviceops) as server:
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
                while (await anext(following)).successes != 1:
                    pass
    assert server.stop() == 0
    assert all(line["level"] != "error" for line in server.log)


async def test_who_follows_misses_nothing_when_the_database_is_killed(
    server: Server, deviceops: Deviceops, postgresql: PrivatePostgreSQL
) -> None:
    async def reported(client: httpx.AsyncClient, number: int) -> None:
        path = f"{OF_OPERATION}devices/{DEVICES[number]}/"
        async with asyncio.timeout(PATIENCE):
            while (await client.put(path, json=REPORT)).status_code != httpx.codes.OK:  # noqa: ASYNC110
                await asyncio.sleep(0.5)

    with deviceops.running("changes", "--follow", "--json") as command:
        assert command.stdout is not None
        assert json.loads(await asyncio.to_thread(command.stdout.readline))["position"] == 1
        async with (
            server.async_client() as client,
            aclosing(events(client, f"{OF_OPERATION}events")) as of_one,
            aclosing(events(client, "/v0/events", 0)) as of_all,
        ):
            followers = of_one, of_all
            assert [(await anext(each)).id for each in followers] == [1, 1]
            for number in range(3):
                await reported(client, number)
                postgresql.kill()
                await asyncio.sleep(1)
                await asyncio.to_thread(postgresql.start)
                await reported(client, number + 3)
                async with asyncio.timeout(PATIENCE):
                    for position in (2 * number + 2, 2 * number + 3):
                        assert [(await anext(each)).id for each in followers] == [position] * 2
                        line = await asyncio.to_thread(command.stdout.readline)
                        assert json.loads(line)["position"] == position
    assert server.stop() == 0
    assert all(line["level"] != "error" for line in server.log)
