"""Exports: every row once, of one snapshot, as CSV that no spreadsheet runs and JSON lines that are exact."""

import json
from contextlib import aclosing
from csv import DictReader
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from pydantic_core import from_json, to_json
from sqlalchemy import delete, update

from statemachine import OperationState, State
from tests.support.filtered import MOMENTS, OPERATION, fill
from worker.store import exports, queries
from worker.store.database import Database
from worker.store.device_filter import DeviceFilter
from worker.store.export_lines import DEVICE_COLUMNS, OPERATION_COLUMNS, Format, defused
from worker.store.exports import Export
from worker.store.operation_filter import OperationFilter
from worker.store.pagination import PageRequest
from worker.store.tables import device_operations

pytestmark = pytest.mark.each_database(full=True)

FILTERS = {
    "none": DeviceFilter(),
    "states": DeviceFilter(frozenset({State.FAILURE, State.TIMEOUT})),
    "service and code": DeviceFilter(service_id="deviceops", code="E1"),
    "period": DeviceFilter(updated_after=MOMENTS[2], updated_before=MOMENTS[4]),
    "no row": DeviceFilter(service_id="unknown"),
}


async def read(export: Export) -> str:
    """The whole text; every portion says how many rows it has."""
    text, rows = b"", 0
    async with aclosing(export.portions) as portions:
        async for portion in portions:
            text += portion.text
            rows += portion.rows
    assert rows == export.count
    return text.decode()


async def exported(database: Database, chosen: DeviceFilter, format_: Format) -> str:
    async with database.read() as connection:
        return await read(await exports.of_device_operations(connection, OPERATION, chosen, format_))


async def documents(database: Database, chosen: DeviceFilter) -> list[dict[str, Any]]:
    """The documents of the API, by id."""
    async with database.read() as connection:
        found = await queries.get_operation(connection, OPERATION)
        assert found is not None
        page = await queries.page_of_device_operations(
            connection, found[1], OPERATION, chosen, PageRequest(limit=500)
        )
    return sorted(from_json(to_json(page.results)), key=lambda document: document["id"])


@pytest.mark.parametrize("name", FILTERS)
async def test_json_lines_are_the_documents_of_the_api_with_code_and_service(
    database: Database, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PORTION", 7)
    filled, chosen = await fill(database), FILTERS[name]
    rows = {str(row["id"]): row for row in filled.of(OPERATION)}
    expected = [
        {**document, **{key: rows[document["id"]][key] for key in ("code", "service_id", "dispatched")}}
        for document in await documents(database, chosen)
    ]

    text = await exported(database, chosen, Format.JSONL)

    assert [json.loads(line) for line in text.splitlines()] == expected
    assert (not text) == (name == "no row")


@pytest.mark.parametrize("name", FILTERS)
async def test_csv_has_a_line_for_each_row_and_cells_that_are_no_formulas(database: Database, name: str) -> None:
    await fill(database)
    expected = [json.loads(line) for line in (await exported(database, FILTERS[name], Format.JSONL)).splitlines()]

    text = await exported(database, FILTERS[name], Format.CSV)

    assert text.startswith(",".join(DEVICE_COLUMNS) + "\r\n")
    found = list(DictReader(StringIO(text, newline="")))
    assert found == [
        {
            **{name: defused(row[name] or "") for name in ("code", "reason", "service_id")},
            **{
                name: row[name]
                for name in ("id", "operation_id", "device_id", "state", "created_at", "updated_at")
            },
            "dispatched": json.dumps(row["dispatched"]),
        }
        for row in expected
    ]
    if expected:
        assert {row["reason"][0] for row in found} >= {"'", "n"}
        assert not any(cell.startswith(("=", "+", "-", "@")) for row in found for cell in row.values())


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]
)
def test_a_cell_that_begins_as_a_formula_is_defused(text: str) -> None:
    assert defused(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=b", "1-2", " =1", "it's", "(1)"])
def test_any_other_cell_is_as_it_was(text: str) -> None:
    assert defused(text) == text


async def test_an_export_is_of_one_snapshot_whatever_is_written_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PORTION", 3)
    await fill(database)
    before = await exported(database, DeviceFilter(), Format.JSONL)
    async with database.read_long(60) as connection:
        export = await exports.of_device_operations(connection, OPERATION, DeviceFilter(), Format.JSONL)
        text = (await anext(export.portions)).text.decode()
        async with database.write() as writing:
            await writing.execute(update(device_operations).values(reason="changed"))
            await writing.execute(delete(device_operations).where(device_operations.c.state == State.SUCCESS))
        async with aclosing(export.portions) as portions:
            async for portion in portions:
                text += portion.text.decode()
    assert text == before
    assert await exported(database, DeviceFilter(), Format.JSONL) != before


async def test_rows_of_an_older_schema_have_the_history_that_their_document_has(database: Database) -> None:
    await fill(database)
    async with database.write() as connection:
        await connection.execute(update(device_operations).values(reached=""))
    found = [json.loads(line) for line in (await exported(database, DeviceFilter(), Format.JSONL)).splitlines()]
    assert [each["device_operation_activity"] for each in found] == [
        each["device_operation_activity"] for each in await documents(database, DeviceFilter())
    ]


OPERATION_FILTERS = {
    "none": OperationFilter(),
    "states": OperationFilter(frozenset({OperationState.COMPLETED, OperationState.FAILED})),
    "type and period": OperationFilter(operation_type="CONVERGE", created_after=MOMENTS[2]),
}


@pytest.mark.parametrize("name", OPERATION_FILTERS)
@pytest.mark.parametrize("of_device", [False, True])
async def test_operations_are_exported_as_their_documents(
    database: Database, name: str, of_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PORTION", 4)
    filled = await fill(database)
    chosen = OPERATION_FILTERS[name]
    chosen = OperationFilter(
        chosen.states,
        chosen.operation_type,
        chosen.created_after,
        device_id=filled.device_operations[0]["device_id"] if of_device else None,
    )
    async with database.read() as connection:
        page = await queries.page_of_operations(connection, chosen, PageRequest(limit=500))
        lines = await read(await exports.of_operations(connection, chosen, Format.JSONL))
        text = await read(await exports.of_operations(connection, chosen, Format.CSV))
    expected = sorted(from_json(to_json(page.results)), key=lambda document: UUID(document["id"]))
    assert [json.loads(line) for line in lines.splitlines()] == expected
    found = list(DictReader(StringIO(text, newline="")))
    assert tuple(found[0]) == OPERATION_COLUMNS
    assert [row["id"] for row in found] == [each["id"] for each in expected]
    for row, each in zip(found, expected, strict=True):
        assert row["operation"] == defused(each["operation"])
        assert row["created_by"] == ""
        counts = each["operation_stats"]["device_operation_statuses_count"]
        assert {name: int(row[name]) for name in counts} == counts
