"""Filters: a page of some rows is what a plain filter and a plain sort have, whichever index is walked."""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from statemachine import OperationState, State
from tests.support.filtered import CODES, MOMENTS, OPERATION, REASONS, SERVICES, Filled, Row, fill
from worker.model.causes import GROUPED, cause_of_reason
from worker.store import listing, queries
from worker.store.database import Database
from worker.store.device_filter import DeviceFilter
from worker.store.operation_filter import OperationFilter
from worker.store.pagination import Cursor, Ordering, PageRequest, PageResult

pytestmark = pytest.mark.each_database(full=True)

Find = Callable[[PageRequest], Awaitable[PageResult[UUID]]]

MOMENTS_OR_NONE = st.sampled_from([None, *MOMENTS])
DEVICE_FILTERS = st.builds(
    DeviceFilter,
    states=st.none() | st.frozensets(st.sampled_from(list(State)), min_size=1),
    service_id=st.sampled_from([None, None, *SERVICES[1:], "unknown"]),
    code=st.sampled_from([None, None, None, *CODES[2:]]),
    reason=st.sampled_from([None, None, None, *REASONS, "no route to <address>"]),
    updated_after=MOMENTS_OR_NONE,
    updated_before=MOMENTS_OR_NONE,
)
OPERATION_FILTERS = st.builds(
    OperationFilter,
    states=st.none() | st.frozensets(st.sampled_from(list(OperationState)), min_size=1),
    operation_type=st.sampled_from([None, None, "", "CONVERGE"]),
    created_after=MOMENTS_OR_NONE,
    created_before=MOMENTS_OR_NONE,
)


@pytest.fixture
async def filled(database: Database) -> Filled:
    """The rows, in the database."""
    return await fill(database)


def is_within(moment: Any, after: Any, before: Any) -> bool:
    return (after is None or moment >= after) and (before is None or moment < before)


def is_device_operation(row: Row, chosen: DeviceFilter) -> bool:
    """The filter, said in the plainest way."""
    has_reason = row["state"] in GROUPED and row["code"] is None
    return (
        (chosen.states is None or row["state"] in chosen.states)
        and chosen.service_id in (None, row["service_id"])
        and chosen.code in (None, row["code"])
        and (
            chosen.reason is None
            or (has_reason and cause_of_reason(row["reason"]) == cause_of_reason(chosen.reason))
        )
        and is_within(row["updated_at"], chosen.updated_after, chosen.updated_before)
    )


def is_operation(row: Row, chosen: OperationFilter) -> bool:
    return (
        (chosen.states is None or row["state"] in chosen.states)
        and chosen.operation_type in (None, row["operation_type"] or "")
        and is_within(row["created_at"], chosen.created_after, chosen.created_before)
    )


def ordered(rows: list[Row], ordering: Ordering, states: list[Any]) -> list[UUID]:
    """The ids of rows, as the plainest sort has them."""

    def key(row: Row) -> tuple[Any, ...]:
        time = row[ordering.time], row["id"].bytes
        return (states.index(row["state"]), *time) if ordering.by_state else time

    return [row["id"] for row in sorted(rows, key=key, reverse=ordering.is_descending)]


async def page_of_devices(database: Database, chosen: DeviceFilter, request: PageRequest) -> PageResult[UUID]:
    async with database.read() as connection:
        found = await queries.get_operation(connection, OPERATION)
        assert found is not None
        page = await queries.page_of_device_operations(connection, found[1], OPERATION, chosen, request)
    return page.with_results([each.id for each in page.results])


async def assert_pages_are(expected: list[UUID], find: Find, limit: int, ordering: Ordering) -> None:
    """Walk by cursors to the end and back, and look at pages by their offsets."""
    pages = [await find(PageRequest(limit, 0, ordering, Cursor(None)))]
    while (after := pages[-1].next) is not None:
        pages.append(await find(PageRequest(limit, 0, ordering, Cursor.parse(str(after["cursor"])))))
    assert [id_ for page in pages for id_ in page.results] == expected
    back = pages[-1]
    for earlier in pages[-2::-1]:
        assert back.previous is not None
        back = await find(PageRequest(limit, 0, ordering, Cursor.parse(str(back.previous["cursor"]))))
        assert list(back.results) == list(earlier.results)
    assert back.previous is None
    for offset in (0, limit, len(expected)):
        page = await find(PageRequest(limit, offset, ordering))
        assert list(page.results) == expected[offset : offset + limit]
        assert (page.next is not None) == (offset + limit < len(expected))


@settings(max_examples=25)
@given(chosen=DEVICE_FILTERS, ordering=st.sampled_from(Ordering), limit=st.integers(5, 40))
async def test_filtered_pages_of_device_operations_are_the_filtered_and_sorted_rows(
    database: Database, filled: Filled, chosen: DeviceFilter, ordering: Ordering, limit: int
) -> None:
    rows = [row for row in filled.of(OPERATION) if is_device_operation(row, chosen)]

    async def find(request: PageRequest) -> PageResult[UUID]:
        page = await page_of_devices(database, chosen, request)
        assert page.count == len(rows)
        return page

    await assert_pages_are(ordered(rows, ordering, list(State)), find, limit, ordering)


@settings(max_examples=15)
@given(
    chosen=OPERATION_FILTERS, ordering=st.sampled_from(Ordering), limit=st.integers(5, 40), of_device=st.booleans()
)
async def test_filtered_pages_of_operations_are_the_filtered_and_sorted_rows(
    database: Database,
    filled: Filled,
    chosen: OperationFilter,
    ordering: Ordering,
    limit: int,
    of_device: bool,
) -> None:
    device = filled.device_operations[0]["device_id"] if of_device else None
    chosen = OperationFilter(
        chosen.states, chosen.operation_type, chosen.created_after, chosen.created_before, device
    )
    taking_part = {row["operation_id"] for row in filled.device_operations if row["device_id"] == device}
    rows = [row for row in filled.operations if is_operation(row, chosen)]
    rows = [row for row in rows if not of_device or row["id"] in taking_part]

    async def find(request: PageRequest) -> PageResult[UUID]:
        async with database.read() as connection:
            page = await queries.page_of_operations(connection, chosen, request)
        assert page.count == len(rows)
        return page.with_results([each.id for each in page.results])

    await assert_pages_are(ordered(rows, ordering, list(OperationState)), find, limit, ordering)


async def test_what_has_to_be_counted_is_counted_up_to_a_limit_and_pages_go_on_beyond_it(
    database: Database, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_COUNT", 7)
    chosen = DeviceFilter(updated_after=MOMENTS[2])
    rows = [row for row in filled.of(OPERATION) if is_device_operation(row, chosen)]
    expected, limit = ordered(rows, Ordering.UPDATED_AT, list(State)), 5

    async def find(request: PageRequest) -> PageResult[UUID]:
        page = await page_of_devices(database, chosen, request)
        assert page.count == 7
        return page

    await assert_pages_are(expected, find, limit, Ordering.UPDATED_AT)
    found, offset = list[UUID](), 0
    while True:
        page = await find(PageRequest(limit, offset, Ordering.UPDATED_AT))
        found += page.results
        if page.next is None:
            break
        offset = int(page.next["offset"])
    assert found == expected
    assert (await page_of_devices(database, DeviceFilter(), PageRequest())).count == 60
    few = await page_of_devices(
        database, DeviceFilter(code="E1", states=frozenset({State.CREATED})), PageRequest()
    )
    assert few.count == len(few.results) < 7


INDEXES = {
    "service": (DeviceFilter(service_id="deviceops"), "device_operations_by_service"),
    "code": (DeviceFilter(code="E1"), "device_operations_by_cause"),
    "reason": (DeviceFilter(reason=REASONS[0]), "device_operations_by_cause"),
    "period": (DeviceFilter(updated_after=MOMENTS[2]), "device_operations_by_update"),
    "service and period": (
        DeviceFilter(service_id="deviceops", updated_after=MOMENTS[2], updated_before=MOMENTS[5]),
        "device_operations_by_service",
    ),
    "states and code": (
        DeviceFilter(frozenset({State.FAILURE, State.TIMEOUT}), code="E1", updated_before=MOMENTS[5]),
        "device_operations_by_cause",
    ),
}


@pytest.mark.parametrize("name", INDEXES)
async def test_a_filter_walks_an_index_in_its_order(
    database: Database, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page, its count, and a page further on: no table is scanned, and nothing but a page's rows is sorted."""
    chosen, index = INDEXES[name]
    monkeypatch.setattr(listing, "MAX_COUNT", 50)  # as few of the rows as it is of a million
    await fill(database, 3_000)
    statements: list[tuple[str, Any]] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def note(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if "UNION ALL" in statement or "LIMIT" in statement:
            statements.append((statement, parameters))

    async with database.write() as connection:
        await connection.execute(text("ANALYZE"))
    statements.clear()
    first = await page_of_devices(database, chosen, PageRequest(ordering=chosen.ordering, cursor=Cursor(None)))
    assert first.next is not None
    after = Cursor.parse(str(first.next["cursor"]))
    await page_of_devices(database, chosen, PageRequest(ordering=chosen.ordering, cursor=after))
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)

    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    of_rows = [each for each in statements if "operation_activity" not in each[0]]
    assert len(of_rows) == 4
    async with database.read() as connection:
        for statement, parameters in of_rows:
            plan = [row[-1] for row in await connection.exec_driver_sql(explain + statement, parameters)]
            reads = [line for line in plan if re.search(r"\b(Scan|SCAN|SEARCH)\b.* device_operations\b", line)]
            assert reads, plan
            assert all(re.search(rf"(Index |SEARCH ).*\b{index}\b", line) for line in reads), plan
            assert not any("Sort  (" in line for line in plan), plan
