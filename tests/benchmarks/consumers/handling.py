"""What the usual consumer does with a message: read, decide, write, in one transaction; plain SQLAlchemy Core.

The tables are the product's, so every look-up has its index and both are checked alike. The contract and the state
machine are the product's too: what is compared is how the work is done, not the rules.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError
from sqlalchemy import insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters, State, Verdict, contribution, decide, operation_state, shows_dispatch
from worker.model.contract import Announcement, Report
from worker.model.identity import device_operation_id
from worker.model.messages import Message
from worker.model.state_times import entry, noted
from worker.store.tables import activity, dead_letters, device_operations, operation_activity, operations

DESCRIPTION = {
    "operation_type",
    "schedule_type",
    "schedule_args",
    "operation_device_query",
    "arguments",
    "reason",
    "created_by",
}
NO_COUNTERS = Counters()._asdict()


async def take_report(connection: AsyncConnection, message: Message) -> None:
    """One report, or a message that cannot be read."""
    try:
        report = Report.model_validate_json(message.body)
    except ValidationError as error:
        await _reject(connection, message, "malformed", str(error), None)
        return
    await _apply(connection, message, report)


async def take_announcement(connection: AsyncConnection, message: Message) -> None:
    """An operation and its devices; reports that came before are taken up."""
    announced = Announcement.model_validate_json(message.body)
    ids = {device_operation_id(announced.id, device): device for device in announced.device_ids or ()}
    now = datetime.now(UTC)
    described = {
        "expected_device_count": len(ids),
        **announced.model_dump(include=DESCRIPTION),
    }
    new = {"id": announced.id, "state": "", "created_at": announced.created_at or now, "updated_at": now}
    await connection.execute(
        upsert(operations)
        .values(**new, **described, **NO_COUNTERS)
        .on_conflict_do_update(index_elements=["id"], set_=described)
    )
    rows = [
        {
            "id": id_,
            "operation_id": announced.id,
            "device_id": device,
            "state": State.CREATED,
            "dispatched": False,
            "reason": "",
            "created_at": now,
            "updated_at": now,
            "reached": entry(State.CREATED, now),
        }
        for id_, device in ids.items()
    ]
    statement = upsert(device_operations).on_conflict_do_nothing().returning(device_operations.c.id)
    registered = (await connection.execute(statement, rows)).scalars().all() if rows else []
    if registered:
        history = [
            _history(id_, message.message_id or "", State.CREATED, Verdict.APPLIED, now) for id_ in registered
        ]
        await connection.execute(insert(activity), history)
    zero = contribution(State.CREATED, dispatched=False)
    await _count(connection, announced.id, Counters().plus(zero, len(registered)))
    parked = await connection.execute(
        select(dead_letters.c.id, dead_letters.c.body)
        .where(dead_letters.c.operation_id == announced.id, dead_letters.c.device_operation_id.in_(registered))
        .where(dead_letters.c.status == "open", dead_letters.c.reason == "unknown_device_operation")
        .order_by(dead_letters.c.id)
    )
    for letter in parked.all():
        resolved = {"status": "resolved", "resolved_at": now}
        await connection.execute(update(dead_letters).where(dead_letters.c.id == letter.id).values(resolved))
        await _apply(connection, message, Report.model_validate_json(letter.body))


async def _apply(connection: AsyncConnection, message: Message, report: Report) -> None:
    id_ = device_operation_id(report.operation_id, report.device_id)
    current = await _held(connection, id_)
    if current is None:
        # Whoever is announcing the operation is waited for; if nobody is, the announcement finds what is parked.
        new = {"id": report.operation_id, "state": "CREATED", "created_at": _now(), "updated_at": _now()}
        await connection.execute(upsert(operations).values(**new, **NO_COUNTERS).on_conflict_do_nothing())
        current = await _held(connection, id_)
    if current is None:
        await _reject(connection, message, "unknown_device_operation", "is not registered", report)
        return
    state = State(current.state)
    verdict = decide(state, report.state)
    if verdict is Verdict.CONFLICT:
        await _reject(connection, message, "conflict", f"{report.state.name} after {state.name}", report)
        return
    at = report.occurred_at if isinstance(report.occurred_at, datetime) else message.received_at
    row = _history(id_, report.report_id or message.message_id or "", report.state, verdict, at)
    row |= {"service_id": report.service_id, "reason": report.reason or ""}
    recorded = await connection.execute(
        upsert(activity).values(row).on_conflict_do_nothing().returning(activity.c.report_id)
    )
    if recorded.first() is None:
        return  # it came before
    applied = report.state if verdict is Verdict.APPLIED else state
    dispatched = current.dispatched or shows_dispatch(verdict, report.state)
    reached = noted(current.reached, report.state, at)
    if (applied, dispatched, reached) == (state, current.dispatched, current.reached):
        return
    changed = {"state": applied, "dispatched": dispatched, "reached": reached}
    changed |= {"reason": report.reason or "", "updated_at": _now()}
    await connection.execute(update(device_operations).where(device_operations.c.id == id_).values(changed))
    before, after = contribution(state, current.dispatched), contribution(applied, dispatched)
    await _count(connection, report.operation_id, after.plus(before, -1))


async def _held(connection: AsyncConnection, id_: UUID) -> Any:
    """A device operation's row, locked until the commit; None if it is not registered."""
    columns = (device_operations.c.state, device_operations.c.dispatched, device_operations.c.reached)
    found = await connection.execute(select(*columns).where(device_operations.c.id == id_).with_for_update())
    return found.one_or_none()


async def _count(connection: AsyncConnection, operation_id: UUID, delta: Counters) -> None:
    """Add to an operation's counters, and note the state that follows if it is another one."""
    changes = {name: operations.c[name] + number for name, number in delta._asdict().items() if number}
    names = (operations.c[name] for name in Counters._fields)
    statement = (
        update(operations)
        .where(operations.c.id == operation_id)
        .values(**changes, updated_at=_now())
        .returning(operations.c.state, operations.c.expected_device_count, *names)
    )
    before, expected, *counters = (await connection.execute(statement)).one()
    after = operation_state(Counters(*counters), expected)
    if after != before:
        await connection.execute(update(operations).where(operations.c.id == operation_id).values(state=after))
        entry = {"operation_id": operation_id, "state": after, "created_at": _now()}
        await connection.execute(insert(operation_activity).values(entry))


async def _reject(
    connection: AsyncConnection, message: Message, reason: str, detail: str, report: Report | None
) -> None:
    origin = message.origin()
    about: dict[str, object] = {}
    if report is not None:
        about = {
            "operation_id": report.operation_id,
            "device_id": report.device_id,
            "service_id": report.service_id,
            "device_operation_id": device_operation_id(report.operation_id, report.device_id),
            "report_id": report.report_id,
        }
    row = {
        "fingerprint": UUID(message.message_id) if message.message_id else uuid4(),
        "reason": reason,
        "detail": detail,
        "status": "open",
        "attempts": 1,
        "received_at": message.received_at,
        "message_id": message.message_id,
        "type": message.type,
        "sent_at": message.sent_at,
        "exchange": origin.exchange,
        "routing_key": origin.routing_key,
        "properties": {},
        "headers": {},
        "body": message.body,
        **about,
    }
    await connection.execute(upsert(dead_letters).values(row).on_conflict_do_nothing())


def _history(id_: UUID, report_id: str, state: State, verdict: Verdict, at: datetime) -> dict[str, object]:
    return {
        "device_operation_id": id_,
        "report_id": report_id,
        "state": state,
        "verdict": verdict,
        "created_at": at,
        "service_id": "",
        "reason": "",
    }


def _now() -> datetime:
    return datetime.now(UTC)
