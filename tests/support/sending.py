"""How the tests send messages to the processor, and what must hold whatever they sent."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.support import rules
from tests.support.databases import read
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.model.parsing import parse
from worker.processing.splitting import WriteTransactions, process_items
from worker.store.database import Database
from worker.store.group_recount import wrong_groups

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
OPERATIONS = [UUID(int=0x0A), UUID(int=0x0B)]
DEVICES = [UUID(int=0xD1), UUID(int=0xD2), UUID(int=0xD3)]
REPORT, REPORTS, ANNOUNCEMENT = "device-operation.report", "device-operation.reports", "operation.announced"

Batches = Sequence[Sequence[Message]]


def report_body(operation: UUID, device: UUID, state: object, /, **more: object) -> dict[str, Any]:
    """A report with its required fields, and more."""
    body = {
        "operation_id": str(operation),
        "device_id": str(device),
        "state": state,
        "service_id": "drift-service",
    }
    return {**body, **more}


def announcement_body(operation: UUID, devices: Iterable[UUID] | None = None, /, **more: object) -> dict[str, Any]:
    """An announcement with its required fields, the devices if given, and more."""
    body: dict[str, Any] = {"id": str(operation), "operation_type": "CONVERGE"}
    if devices is not None:
        body["device_ids"] = [str(device) for device in devices]
    return {**body, **more}


def encoded(body: object) -> bytes:
    """JSON, and what Python writes beyond it: NaN, lone surrogates, numbers of any size."""
    return json.dumps(body).encode()


def message(body: object, kind: str | None = None, message_id: str | None = None) -> Message:
    """A message; bytes are a body as they stand."""
    return Message(body if isinstance(body, bytes) else encoded(body), NOW, message_id=message_id, type=kind)


async def process(database: Database, batches: Iterable[Iterable[Message]]) -> Tally:
    """Process batches one after another."""
    tally = Tally()
    for batch in batches:
        items = [item for message in batch for item in parse(message)]
        tally.add(await process_items(WriteTransactions(database), items))
    return tally


def assert_everything_is_accounted_for(tally: Tally) -> None:
    """What came in is what came out."""
    document = tally.document()
    counts = {name: n for name, n in document.items() if isinstance(n, int)}
    dead_lettered = document["dead_lettered"]
    assert isinstance(dead_lettered, dict)
    taken = sum(counts[name] for name in ("applied", "late", "repeated", "duplicate", "announced"))
    assert counts["received"] + counts["released"] == taken + sum(dead_lettered.values())
    by_verdict: Counter[str] = Counter()
    for (_, verdict), count in tally.by_service.items():
        by_verdict[verdict] += count
    told = {name: counts[name] for name in ("applied", "late", "repeated", "duplicate")}
    assert {name: by_verdict[name] for name in told} == told
    assert by_verdict["rejected"] == sum(dead_lettered.values())


async def assert_counters_are_a_recount(database: Database) -> None:
    """The stored counters, operation states and groups follow from the rows of the device operations."""
    stored = await read(database)
    for id_, operation in stored.operations.items():
        devices = [(device.state, device.dispatched) for device in operation.devices.values()]
        assert operation.counters == rules.counters_of(devices), id_
        assert operation.state == rules.operation_state_of(devices, operation.expected), id_
        assert operation.states[-1] == operation.state, id_
    async with database.read() as connection:
        assert await wrong_groups(connection) == {}
