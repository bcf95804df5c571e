"""Server-sent events over HTTP: who follows sees each change once, in order, whoever makes it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.databases import NewDatabase
from tests.support.seed import OPERATION
from tests.support.serving import (
    DEVICES,
    OF_OPERATION,
    OPERATIONS,
    REPORT,
    Event,
    Server,
    events,
    refused,
    serving,
    token,
)

PATIENCE = 30
"""Seconds that an event may take that takes a fraction of one."""
OF_ONE, OF_ALL = f"{OF_OPERATION}events", "/v0/events"
OTHER = "0b0f0d7e-0000-4000-8000-000000000001"


@pytest.fixture
def server(deviceops: Deviceops) -> Iterator[Server]:
    """A server with an operation of ten devices; once on each kind of database."""
    report(deviceops, "CREATED", DEVICES)
    with serving(deviceops) as server:
        yield server


def report(deviceops: Deviceops, state: str, devices: list[str], operation: str = OPERATION["id"]) -> None:
    """Another process reports."""
    reports = ({**REPORT, "operation_id": operation, "device_id": device, "state": state} for device in devices)
    deviceops.out("ingest", "-", lines="".join(json.dumps(each) + "\n" for each in reports))


async def until(following: AsyncIterator[Event], successes: int) -> list[Event]:
    """The events up to the one that tells of so many successes; what came before tells of fewer."""
    found = []
    async with asyncio.timeout(PATIENCE):
        async for event in following:
            found.append(event)
            assert event.successes <= successes
            if event.successes == successes:
                return found
    raise AssertionError("the events ended")


async def take(following: AsyncIterator[Event], number: int) -> list[Event]:
    """The next events."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(following) for _ in range(number)]


async def followed(server: Server) -> None:
    """Wait until somebody follows."""
    async with asyncio.timeout(PATIENCE):
        while "deviceops_http_followers 1.0" not in (await asyncio.to_thread(server.probe, "metrics")).text:  # noqa: ASYNC110  # no event comes
            await asyncio.sleep(0.1)


async def test_who_follows_an_operation_sees_its_state_at_once_and_then_every_change(
    deviceops: Deviceops, server: Server
) -> None:
    async with server.async_client() as api, aclosing(events(api, OF_ONE)) as following:
        [first] = await until(following, 0)
        assert (first.type, first.data["id"], first.data["state"]) == ("operation", OPERATION["id"], "RESOLVED")
        for number, device in enumerate(DEVICES[:2], start=1):
            await asyncio.to_thread(report, deviceops, "SUCCESS", [device])
            [change] = await until(following, number)
            assert (change.type, change.data["state"]) == ("operation.changed", "DISPATCHING")
            assert change.data["sequence"] == first.data["sequence"] + number
            assert change.id > first.id
        await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[2:])
        [change] = await until(following, 10)
        assert change.data["state"] == "COMPLETED"


async def test_who_comes_back_receives_what_it_has_missed_and_nothing_twice(
    deviceops: Deviceops, server: Server
) -> None:
    async with server.async_client() as api:
        async with aclosing(events(api, OF_ALL)) as following:
            # It begins at the end; the next change is the first event.
            waiting = asyncio.create_task(take(following, 1))
            await followed(server)
            await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[:1])
            [first] = await waiting
        for device in DEVICES[1:4]:
            await asyncio.to_thread(report, deviceops, "SUCCESS", [device])
        async with aclosing(events(api, OF_ALL, first.id)) as following:
            found = [first, *await take(following, 3)]
            await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[4:5])
            found += await take(following, 1)
        assert [event.successes for event in found] == [1, 2, 3, 4, 5]
        assert [event.id for event in found] == [*range(first.id, first.id + 5)]
        for path, named in ((OF_ALL, "last_event_id"), (OF_ALL, "since"), (OF_ONE, "last_event_id")):
            for number, event in enumerate(found[:-1], start=1):
                async with aclosing(events(api, path, **{named: event.id})) as following:
                    assert await take(following, 5 - number) == found[number:]


async def test_a_follower_of_one_operation_sees_no_other_one_and_one_of_types_no_other_type(
    deviceops: Deviceops, server: Server
) -> None:
    everything = deviceops.with_settings(changes="all")
    await asyncio.to_thread(report, everything, "CREATED", DEVICES[:1], OTHER)
    await asyncio.to_thread(report, everything, "SUCCESS", DEVICES[:1])
    await asyncio.to_thread(report, everything, "FINE", DEVICES[:1])
    async with server.async_client() as api:
        kinds = {
            OF_ALL: ["operation.changed", "operation.changed", "device-operations.changed"] * 2,
            OF_ONE: ["operation.changed", "operation.changed", "device-operations.changed"],
        }
        kinds[OF_ALL] = [
            "operation.changed",
            *["operation.changed", "device-operations.changed"] * 2,
            "dead-letters.added",
        ]
        for path, expected in kinds.items():
            async with aclosing(events(api, path, 0)) as following:
                found = await take(following, len(expected))
                assert [event.type for event in found] == expected
                assert path == OF_ALL or {event.data["operation_id"] for event in found} == {OPERATION["id"]}
        wanted = "device-operations.changed,dead-letters.added"
        async with aclosing(events(api, OF_ALL, 0, types=wanted)) as following:
            await asyncio.to_thread(report, everything, "SUCCESS", DEVICES[1:2])
            found = await take(following, 4)
            assert [event.type for event in found] == [
                *["device-operations.changed"] * 2,
                "dead-letters.added",
                "device-operations.changed",
            ]
            assert [each["device_id"] for each in found[3].data["changes"]] == DEVICES[1:2]


async def test_many_may_follow_and_leave(deviceops: Deviceops, server: Server) -> None:
    async with server.async_client() as api:

        async def follow(leaving: bool) -> None:
            async with aclosing(events(api, OF_ONE)) as following:
                await until(following, 0)
                if not leaving:
                    await until(following, 1)

        tasks = [asyncio.create_task(follow(number % 2 == 0)) for number in range(40)]
        await asyncio.gather(*tasks[::2])
        await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[:1])
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("path", [OF_ONE, OF_ALL])
async def test_a_server_that_is_told_to_stop_lets_those_go_who_follow(server: Server, path: str) -> None:
    async with server.async_client() as api, aclosing(events(api, path, 0)) as following:
        await until(following, 0)

        stopping = asyncio.create_task(asyncio.to_thread(server.stop))

        async with asyncio.timeout(5):
            assert [event async for event in following] == []
            assert await stopping == 0


async def test_events_go_on_when_the_connection_that_listens_was_lost(
    new_postgresql_database: NewDatabase, deviceops_on_sqlite: Deviceops
) -> None:
    url = new_postgresql_database()
    deviceops = deviceops_on_sqlite.with_settings(database_url=url)
    report(deviceops, "CREATED", DEVICES)
    with serving(deviceops) as server:
        async with server.async_client() as api, aclosing(events(api, OF_ONE)) as following:
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


async def test_a_stream_that_cannot_go_on_where_it_was_says_so_and_begins_anew(
    deviceops: Deviceops, server: Server
) -> None:
    async with server.async_client() as api:
        async with aclosing(events(api, OF_ONE, 4_711)) as following:
            [reset, state] = await take(following, 2)
            assert (reset.type, reset.data["reason"], state.type) == ("reset", "beyond_end", "operation")
            assert reset.data["last_event_id"] == 4_711
            assert reset.id == state.id == reset.data["last"] == 1
            await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[:1])
            await until(following, 1)
        assert deviceops.with_settings(keep_changes="0").document("prune")["changes"] == 2
        async with aclosing(events(api, OF_ALL, 0)) as following:
            [reset] = await take(following, 1)
            assert (reset.type, reset.data["reason"]) == ("reset", "removed")
            assert (reset.id, reset.data["first"], reset.data["last"]) == (2, 3, 2)
            await asyncio.to_thread(report, deviceops, "SUCCESS", DEVICES[1:2])
            [change] = await until(following, 2)
            assert change.id == 3


def test_what_cannot_be_followed_is_refused(deviceops_on_sqlite: Deviceops) -> None:
    blind, setting = token(deviceops_on_sqlite, "blind", ["read:device"])
    report(deviceops_on_sqlite, "CREATED", DEVICES)
    with serving(deviceops_on_sqlite.with_settings(api_tokens=setting)) as server, server.client() as api:
        refused(api.get(f"{OPERATIONS}{OTHER}/events"), 404)
        for path in (OF_ALL, OF_ONE):
            for wrong in ("x", "-1", "1.5", ""):
                [fault] = refused(api.get(path, headers={"Last-Event-ID": wrong}), 400)["faults"]
                assert fault["where"] == "Last-Event-ID"
            [fault] = refused(api.get(f"{path}?types=operation.changed,nonsense"), 400)["faults"]
            assert fault["where"] == "types"
            with server.client(blind) as other:
                refused(other.get(path), 403)
            head = api.head(path)
            assert (head.status_code, head.headers["Content-Type"]) == (
                httpx.codes.OK,
                "text/event-stream; charset=utf-8",
            )


def test_where_nothing_is_told_nothing_can_be_followed(deviceops_on_sqlite: Deviceops) -> None:
    report(deviceops_on_sqlite, "CREATED", DEVICES)
    with serving(deviceops_on_sqlite.with_settings(changes="none")) as server, server.client() as api:
        for path in (OF_ALL, OF_ONE):
            response = api.get(path)
            refused(response, 404)
            assert response.json()["message"] == "no changes are told: DEVICEOPS_CHANGES is none"
