"""How the tests look at dead letters, send them again, and compare a dry run with the replay."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, select

from tests.support.databases import read
from tests.support.sending import (
    DEVICES,
    NOW,
    OPERATIONS,
    message,
    process,
    report_body,
)
from worker.config.reporters import Reporters
from worker.dead_letters.replay import preview, replay
from worker.model.dead_letter import DeadLetter
from worker.model.messages import Message, Origin
from worker.model.outcomes import Action, Status
from worker.store import dead_letters as letters
from worker.store.database import Database
from worker.store.dead_letters import stored_message
from worker.store.documents import DeadLetterEntry
from worker.store.selection import Selection
from worker.store.tables import dead_letters

ALL, DISCARDED = Selection(), Selection(status=Status.DISCARDED)
OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
NOBODY = Reporters({}, verify_user_id=True)

Rows = Sequence[Row[Any]]


async def rows(database: Database, selection: Selection = ALL) -> Rows:
    async with database.read() as connection:
        query = select(dead_letters).where(selection.condition()).order_by(dead_letters.c.id)
        return (await connection.execute(query)).all()


async def history(database: Database, row: Row[Any]) -> list[DeadLetterEntry]:
    async with database.read() as connection:
        return (await letters.histories_of(connection, [row]))[row.id]


async def state(database: Database) -> str:
    return (await read(database)).operations[OPERATION].devices[DEVICE].state


def through_the_broker(sent: Message, *, abandoned: bool = False) -> Message:
    return replace(
        sent, origin=lambda: Origin("device-operations", "any"), abandoned="it was full" if abandoned else None
    )


def republished(row: Row[Any]) -> Message:
    """What a worker gets when a dead letter was sent to the broker again."""
    id_ = stored_message(row).message_id
    again = Message(row.body, NOW, message_id=id_, type=row.type, replay_of=row.fingerprint)
    return through_the_broker(again)


async def mark_republished(database: Database, found: Rows) -> None:
    async with database.write() as connection:
        now = datetime.now(UTC)
        await letters.set_status(connection, found, Status.RESOLVED, Action.REPUBLISHED, "", "me", now)


async def replay_as_foretold(database: Database, reporters: Reporters | None, selection: Selection = ALL) -> None:
    """A replay; before it a dry run, which must say the same, of each dead letter too."""
    before = await read(database)
    foretold, outcomes = await preview(database, selection, reporters=reporters)
    assert await read(database) == before
    summary = await replay(database, selection, actor="me", reporters=reporters)
    assert foretold.document() == summary.document()
    stands = {
        row.id: row.reason if row.status == Status.OPEN else ""
        for row in await rows(database, Selection(status=None))
    }
    told = {id_: found.reason if isinstance(found, DeadLetter) else "" for id_, found in outcomes.items()}
    assert told == {id_: stands[id_] for id_ in told}


async def conflict(database: Database, **more: object) -> tuple[Row[Any], dict[str, Any]]:
    """The dead letter of a report that contradicts FAILURE, and its body."""
    body = report_body(OPERATION, DEVICE, "SUCCESS", **more)
    reports = [report_body(OPERATION, DEVICE, "CREATED"), report_body(OPERATION, DEVICE, "FAILURE"), body]
    await process(database, [map(message, reports)])
    [row] = await rows(database)
    return row, body
