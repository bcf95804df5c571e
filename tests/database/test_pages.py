"""Pages: whatever the order, the filter and the step, they are the rows in order, each once."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, update

from statemachine import Counters, OperationState, State, contribution
from worker.model.identity import device_operation_id
from worker.store import queries
from worker.store.database import Database
from worker.store.device_filter import DeviceFilter
from worker.store.operation_filter import OperationFilter
from worker.store.pagination import Cursor, Ordering, PageRequest, PageResult
from worker.store.tables import device_operations, operations

OPERATION, OTHER = UUID(int=1), UUID(int=2)
SOME_STATES = (State.CREATED, State.PROCESSING, State.FAILURE, State.SUCCESS)
START = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = 4


def moment(random: Random) -> datetime:
    """One of few, so that many rows have the same."""
    return START + timedelta(microseconds=random.randrange(3))


def a_row(operation: UUID, device: UUID, random: Random) -> dict[str, Any]:
    return {
        "id": device_operation_id(operation, device),
        "operation_id": operation,
        "device_id": device,
        "state": random.choice(SOME_STATES),
        "dispatched": random.random() < 0.5,
        "reason": "",
        "created_at": moment(random),
        "updated_at": moment(random),
        "registered_at": 0,
        "reported_at": 0,
    }


def an_operation(id_: UUID, rows: list[dict[str, Any]], random: Random) -> dict[str, Any]:
    counters = Counters()
    for row in rows:
        counters = counters.plus(contribution(row["state"], row["dispatched"]))
    return {
        "id": id_,
        "state": random.choice(list(OperationState)).value,
        "created_at": moment(random),
        "updated_at": moment(random),
        **counters._asdict(),
    }


async def fill(database: Database) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two operations with 20 devices each, and 18 more of the first device: all rows of both tables."""
    random = Random("pages")  # noqa: S311  # a test's numbers, not a secret
    devices = [UUID(int=random.getrandbits(128)) for _ in range(20)]
    rows = [a_row(operation, device, random) for operation in (OPERATION, OTHER) for device in devices]
    more = [UUID(int=random.getrandbits(128)) for _ in range(18)]
    rows += [a_row(operation, devices[0], random) for operation in more]
    parents = [
        an_operation(id_, [row for row in rows if row["operation_id"] == id_], random)
        for id_ in (OPERATION, OTHER, *more)
    ]
    async with database.write() as connection:
        await connection.execute(insert(operations), parents)
        await connection.execute(insert(device_operations), rows)
    return parents, rows


def ordered(rows: list[dict[str, Any]], ordering: Ordering, states: list[Any]) -> list[UUID]:
    """The ids of rows, as the plainest sort has them."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        time = row[ordering.time], row["id"].bytes
        return (states.index(row["state"]), *time) if ordering.by_state else time

    return [row["id"] for row in sorted(rows, key=key, reverse=ordering.is_descending)]


async def page_of_devices(database: Database, state: State | None, request: PageRequest) -> PageResult[UUID]:
    chosen = DeviceFilter(None if state is None else frozenset({state}))
    async with database.read() as connection:
        found = await queries.get_operation(connection, OPERATION)
        assert found is not None
        page = await queries.page_of_device_operations(connection, found[1], OPERATION, chosen, request)
    return page.with_results([each.id for each in page.results])


async def walk(find: Any, request: PageRequest) -> list[list[UUID]]:
    """All pages from the first on by cursors, which lead back just so."""
    page = await find(request)
    pages = [page]
    while pages[-1].next:
        pages.append(
            await find(PageRequest(request.limit, 0, request.ordering, Cursor.parse(pages[-1].next["cursor"])))
        )
    back = pages[-1]
    for earlier in pages[-2::-1]:
        back = await find(PageRequest(request.limit, 0, request.ordering, Cursor.parse(back.previous["cursor"])))
        assert list(back.results) == list(earlier.results)
    assert back.previous is None
    return [list(page.results) for page in pages]


@pytest.mark.parametrize("state", [None, State.FAILURE, State.CANCELLED])
async def test_pages_of_device_operations_are_the_sorted_rows(database: Database, state: State | None) -> None:
    _, rows = await fill(database)
    wanted = [row for row in rows if row["operation_id"] == OPERATION and state in (None, row["state"])]
    for ordering in Ordering:
        expected = ordered(wanted, ordering, list(State))
        for offset in range(0, len(wanted) + LIMIT, LIMIT):
            page = await page_of_devices(database, state, PageRequest(LIMIT, offset, ordering))
            assert (page.count, list(page.results)) == (len(wanted), expected[offset : offset + LIMIT])

        async def find(request: PageRequest) -> PageResult[UUID]:
            return await page_of_devices(database, state, request)

        pages = await walk(find, PageRequest(LIMIT, 0, ordering, Cursor(None)))
        assert [id_ for page in pages for id_ in page] == expected


@pytest.mark.parametrize("of_device", [False, True])
@pytest.mark.parametrize("state", [None, OperationState.RESOLVED])
async def test_pages_of_operations_are_the_sorted_rows(
    database: Database, state: OperationState | None, of_device: bool
) -> None:
    parents, rows = await fill(database)
    device = rows[0]["device_id"] if of_device else None
    taking_part = {row["operation_id"] for row in rows if device in (None, row["device_id"])}
    wanted = [row for row in parents if row["id"] in taking_part and state in (None, row["state"])]
    assert len(wanted) > LIMIT or state

    chosen = OperationFilter(None if state is None else frozenset({state}), device_id=device)

    async def find(request: PageRequest) -> PageResult[UUID]:
        async with database.read() as connection:
            page = await queries.page_of_operations(connection, chosen, request)
        assert page.count == len(wanted)
        return page.with_results([each.id for each in page.results])

    for ordering in Ordering:
        expected = ordered(wanted, ordering, list(OperationState))
        pages = await walk(find, PageRequest(LIMIT, 0, ordering, Cursor(None)))
        assert [id_ for page in pages for id_ in page] == expected
        page = await find(PageRequest(LIMIT, 1, ordering))
        assert list(page.results) == expected[1 : 1 + LIMIT]


async def test_a_cursor_goes_on_where_it_was_however_rows_come_and_go(database: Database) -> None:
    _, rows = await fill(database)
    first = await page_of_devices(database, None, PageRequest(LIMIT, cursor=Cursor(None)))
    assert first.next is not None
    removed = first.results[-1]
    async with database.write() as connection:
        await connection.execute(
            update(device_operations).where(device_operations.c.id == removed).values(operation_id=OTHER)
        )

    second = await page_of_devices(
        database, None, PageRequest(LIMIT, cursor=Cursor.parse(str(first.next["cursor"])))
    )

    of_operation = [row for row in rows if row["operation_id"] == OPERATION]
    assert list(second.results) == ordered(of_operation, Ordering.CREATED_AT, list(State))[LIMIT : 2 * LIMIT]
