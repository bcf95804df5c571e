"""Corrects a dead letter: stores a corrected copy that is linked to the original, and processes the copy."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pydantic_core
from sqlalchemy import Row

from worker.config.reporters import Reporters
from worker.dead_letters.replay import Summary, replay
from worker.errors import DeviceopsError
from worker.model.identity import identity
from worker.model.messages import Rejected
from worker.model.outcomes import Action, Status
from worker.model.parsing import named_in, parse
from worker.model.unwrapping import text_of
from worker.store import dead_letter_batch, dead_letters
from worker.store.database import Database
from worker.store.dead_letters import stored_message
from worker.store.rows import HistoryEntry
from worker.store.selection import Selection


async def get_open(database: Database, id_: int) -> Row[Any]:
    """Return the row of an open dead letter. Raises DeviceopsError if it does not exist or is not open."""
    async with database.read() as connection:
        rows, _ = await dead_letters.page(connection, [id_], status=None)
    if not rows:
        raise DeviceopsError(f"dead letter {id_} is unknown")
    row = rows[0]
    if row.status != Status.OPEN:
        raise DeviceopsError(f"dead letter {id_} is {row.status}; only an open one can be corrected")
    return row


async def correct(
    database: Database,
    row: Row[Any],
    body: bytes,
    type_: str | None,
    *,
    actor: str,
    reporters: Reporters | None = None,
) -> tuple[int, Summary]:
    """Replace an open dead letter by a copy with another body, and process the copy.

    The copy has a new message id. A report id that equals the original's is replaced too, or the copy would be a
    duplicate of the original. Returns the copy's id and the summary of its replay.

    Raises DeviceopsError, and changes nothing, if the new body cannot be read or the original has changed since.
    """
    original = stored_message(row)
    # The corrected body is plain text, even if the original was compressed.
    origin = original.origin().plain()
    content, id_ = _with_own_ids(body, row.report_id), str(uuid4())
    message = replace(original, content=content, message_id=id_, type=type_, origin=lambda: origin)
    rejected = next((item for item in parse(message) if isinstance(item, Rejected)), None)
    if rejected is not None:
        raise DeviceopsError(f"not corrected: {rejected.detail}")
    copy = {
        **row._mapping,
        "fingerprint": uuid4(),
        "attempts": 0,
        "detail": f"a corrected copy of dead letter {row.id}",
        **dict.fromkeys(("operation_id", "device_id", "service_id", "device_operation_id", "report_id")),
        **named_in(message),
        "message_id": message.message_id,
        "type": message.type,
        "properties": origin.properties,
        "headers": origin.headers,
        "body": message.body,
        "corrects": row.id,
    }
    del copy["id"]
    now = datetime.now(UTC)
    async with database.write() as connection:
        await dead_letter_batch.keep(connection, [copy])
        [id_] = (
            found.id for found in (await dead_letters.by_fingerprint(connection, [copy["fingerprint"]])).values()
        )
        outcome = f"replaced by dead letter {id_}"
        if not await dead_letters.set_status(
            connection, [row], Status.RESOLVED, Action.CORRECTED, outcome, actor, now
        ):
            raise DeviceopsError(f"dead letter {row.id} has changed since it was read; read it again")
        outcome = f"a copy of dead letter {row.id}"
        await dead_letter_batch.note_history(
            connection, [HistoryEntry(id_, now, actor, Action.CORRECTED, outcome, "")]
        )
    return id_, await replay(database, Selection(ids=[id_]), actor=actor, reporters=reporters)


def _with_own_ids(body: bytes, known_by: str | None) -> bytes:
    """Return the body with a new id for each report whose id is the original's."""
    try:
        document = pydantic_core.from_json(text_of(body))
    except ValueError:
        return body
    reports = document.get("reports", document) if isinstance(document, dict) else None
    changed = False
    for report in reports if isinstance(reports, list) else [reports]:
        if isinstance(report, dict) and known_by is not None and identity(report.get("report_id")) == known_by:
            report["report_id"] = str(uuid4())
            changed = True
    return pydantic_core.to_json(document) if changed else body
