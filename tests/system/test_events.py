"""Server-sent events: who follows an operation sees it as it is, and each change, whoever makes it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.seed import OPERATION
from tests.support.serving import DEVICES, OF_OPERATION, REPORT, Server, events, serving

PATIENCE = 30
"""Seconds that an event may take that takes a fraction of one."""
EVENTS = f"{OF_OPERATION}events"


@pytest.fixture
def server(deviceops: Deviceops) -> Iterator[Server]:
    """A server with an operation of ten devices; once on each kind of database."""
    report(deviceops, "CREATED", DEVICES)
    with serving(deviceops) as server:
        yield server


def report(deviceops: Deviceops, state: str, devices: list[str]) -> None:
    """Another process reports."""
    reports = (
        {**REPORT, "operation_id": OPERATION["id"], "device_id": device, "state": state} for device in devices
    )
    deviceops.out("ingest", "-", lines="".join(json.dumps(each) + "\n" for each in reports))


async def until(following: AsyncIterator[dict[str, Any]], successes: int) -> dict[str, Any]:
    """The event that tells of so many successes; what came before tells of fewer."""
    async with asyncio.timeout(PATIENCE):
        async for event in following:
            count = event["operation_stats"]["device_operation_statuses_count"]["success_device_count"]
            assert count <= successes
            if count == successes:
                return event
    raise AssertionError("the events ended")


async def test_who_follows_sees_the_state_at_once_and_then_every_change(
    deviceops: Deviceops, server: Server
) -> None:
    async with server.async_client() as api, aclosing(events(api, EVENTS)) as following:
        first = await until(following, 0)
        assert (first["id"], first["state"]) == (OPERATION["id"], "RESOLVED")
        for number, device in enumerate(DEVICES[:2], start=1):
            await asyncio.to_thread(report, deviceops, "SUCCESS", [device])
            assert (await until(following, number))["state"] == "DISPATCHING"
        await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[2:])
        assert (await until(following, 10))["state"] == "COMPLETED"


async def test_many_may_follow_and_leave(deviceops: Deviceops, server: Server) -> None:
    async with server.async_client() as api:

        async def follow(leaving: bool) -> None:
            async with aclosing(events(api, EVENTS)) as following:
                await until(following, 0)
                if not leaving:
                    await until(following, 1)

        tasks = [asyncio.create_task(follow(number % 2 == 0)) for number in range(40)]
        await asyncio.gather(*tasks[::2])
        await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[:1])
        await asyncio.gather(*tasks)


async def test_a_server_that_is_told_to_stop_lets_those_go_who_follow(server: Server) -> None:
    async with server.async_client() as api, aclosing(events(api, EVENTS)) as following:
        await until(following, 0)

        stopping = asyncio.create_task(asyncio.to_thread(server.stop))

        async with asyncio.timeout(5):
            assert [event async for event in following] == []
            assert await stopping == 0


async def test_events_go_on_when_the_connection_that_listens_was_lost(
    new_postgresql_database: Any, deviceops_on_sqlite: Deviceops
) -> None:
    url = new_postgresql_database()
    deviceops = deviceops_on_sqlite.with_settings(database_url=url)
    report(deviceops, "CREATED", DEVICES)
    with serving(deviceops) as server:
        async with server.async_client() as api, aclosing(events(api, EVENTS)) as following:
            await until(following, 0)
            connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(False))
            try:
                ended = (
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE query LIKE 'SELECT current_setting(%' AND datname = current_database()"  # its last one
                )
                assert await connection.fetchval(ended) == 1
            finally:
                await connection.close()
            await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[:1])
            await until(following, 1)
            await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[1:2])
            await until(following, 2)


async def test_events_of_an_unknown_operation_are_not_found(deviceops_on_sqlite: Deviceops) -> None:
    with serving(deviceops_on_sqlite) as server:
        async with server.async_client() as api:
            assert (await api.get(EVENTS)).status_code == httpx.codes.NOT_FOUND
