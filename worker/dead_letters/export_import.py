"""Export and import of dead letters as JSON lines, with everything that is stored of them."""

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid5

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
)

from worker.config.reporters import Reporters
from worker.dead_letters.paging import RETRY_TIMEOUT, pages
from worker.dead_letters.replay import replay
from worker.errors import DeviceopsError
from worker.model.dead_letter import DeadLetter
from worker.model.identity import NAMESPACE
from worker.model.messages import Incoming, Message, Origin, Rejected
from worker.model.outcomes import Action, Reason, Status
from worker.model.parsing import NAMING, describe_invalid, parse
from worker.processing.batches import retry_transient
from worker.processing.changes import of_dead_letters
from worker.store import dead_letter_batch, dead_letters, documents, outbox
from worker.store.database import Database
from worker.store.selection import Selection

REPORTS_OWN = tuple(reason for reason in Reason if reason.traits.keeps_identity)
"""Reasons for which a dead letter keeps the identity of its report."""

Base64 = Annotated[
    bytes,
    BeforeValidator(lambda value: b64decode(value, validate=True) if isinstance(value, str) else value),
    PlainSerializer(lambda value: b64encode(value).decode(), return_type=str),
]


def _is_object(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("is not an object")  # noqa: TRY004  # pydantic adds the location to a ValueError only
    return value


JsonObject = Annotated[Any, AfterValidator(_is_object)]
"""Properties or headers; they may contain text that is not valid UTF-8."""


class ExportedDeadLetter(BaseModel):
    """One exported dead letter. `id` is the one in the exporting database; an import assigns a new one."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    fingerprint: UUID
    reason: Reason
    detail: str
    status: Status
    attempts: Annotated[int, Field(ge=0, lt=2**31)]
    received_at: AwareDatetime
    resolved_at: AwareDatetime | None
    operation_id: UUID | None
    device_id: UUID | None
    service_id: str | None
    device_operation_id: UUID | None
    report_id: str | None
    message_id: str | None
    type: str | None
    sent_at: AwareDatetime | None
    exchange: str
    routing_key: str
    properties: JsonObject
    headers: JsonObject
    body_base64: Base64
    body_removed_at: AwareDatetime | None
    history: list[documents.DeadLetterEntry]

    @field_validator("detail", "service_id", "message_id", "type", "exchange", "routing_key", "history")
    @classmethod
    def has_no_nul(cls, value: object) -> object:
        """Reject NUL characters, which PostgreSQL cannot store in text."""
        entries = value if isinstance(value, list) else []
        texts = [value, *(text for each in entries for text in (each.actor, each.outcome, each.detail))]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ValueError("has a NUL character")
        return value

    def document(self) -> dict[str, Any]:
        """The dead letter as a JSON document."""
        tables = ("properties", "headers")  # in this order, so that two exports are the same
        return self.model_dump(mode="json", exclude=set(tables)) | {name: getattr(self, name) for name in tables}

    def row(self, now: datetime) -> dict[str, Any]:
        """The row to insert.

        An open dead letter gets the fingerprint that it would have had if it had been rejected here. A closed one
        gets another one, so that the report itself, which was not processed here, is not a duplicate of it.
        `received_at` and `resolved_at` are at most `now`, since retention depends on them.

        Raises ValueError if the reason requires a readable report and the body is none.
        """
        origin = Origin(self.exchange, self.routing_key, self.properties, self.headers)
        received_at = min(self.received_at, now)
        message = Message(self.body_base64, received_at, self.message_id, self.type, self.sent_at, lambda: origin)
        report = None
        if self.status is Status.OPEN and self.reason in REPORTS_OWN:
            item = next(iter(parse(message)), None)
            if not isinstance(item, Incoming) or item.message is not message:  # a report of a bulk message
                why = f": {item.detail}" if isinstance(item, Rejected) else ""
                raise ValueError(f"reason: {self.reason} is only for a readable report{why}")
            report = item
        letter = DeadLetter(self.reason, self.detail, message, report, self.status)
        closed = (
            {} if self.status is Status.OPEN else {"fingerprint": uuid5(NAMESPACE, f"closed {self.fingerprint}")}
        )
        kept = {
            "attempts": self.attempts,
            "resolved_at": None if self.status is Status.OPEN else min(self.resolved_at or now, now),
            "body_removed_at": self.body_removed_at,
        }
        if report is None:  # otherwise taken from the report
            kept |= {name: getattr(self, name) for name in NAMING}
        return letter.row(now) | kept | closed


async def export(database: Database, selection: Selection, limit: int | None = None) -> AsyncIterator[list[bytes]]:
    """Yield pages of the selected dead letters, at most `limit` in all, as JSON lines without line ends."""
    async for rows in pages(database.read, selection, limit):
        async with database.read() as connection:
            histories = await dead_letters.histories_of(connection, rows)
        found = [
            ExportedDeadLetter.model_validate(
                {**row._mapping, "body_base64": row.body, "history": histories[row.id]}
            )
            for row in rows
        ]
        # Not pydantic's writer, which fails on lone surrogates.
        yield [json.dumps(line.document(), separators=(",", ":")).encode() for line in found]


def read_line(line: bytes, number: int) -> ExportedDeadLetter:
    """Parse an exported line. Raises DeviceopsError with the number of the line and the problem."""
    try:
        found = ExportedDeadLetter.model_validate(json.loads(line, parse_constant=_no_constant))
        found.row(found.received_at)
    except ValidationError as error:
        raise DeviceopsError(f"line {number}: {describe_invalid(error)}") from None
    except json.JSONDecodeError as error:
        raise DeviceopsError(f"line {number}: is not JSON: {error.msg} at character {error.colno}") from None
    except UnicodeDecodeError:
        raise DeviceopsError(f"line {number}: is not UTF-8") from None
    except RecursionError:
        raise DeviceopsError(f"line {number}: is nested too deeply") from None
    except ValueError as error:
        raise DeviceopsError(f"line {number}: {error}") from None
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"has {name}, which is not JSON")


async def import_(
    database: Database, lines: Sequence[ExportedDeadLetter], *, actor: str, reporters: Reporters | None = None
) -> int:
    """Import exported dead letters in one transaction; returns the number of new ones.

    Parked reports are replayed afterwards, since their registration may already exist.
    """
    new = await retry_transient(database, RETRY_TIMEOUT, _import, database, lines, actor)
    parked = [id_ for id_, line in new.items() if line.reason is Reason.UNKNOWN_DEVICE_OPERATION]
    await replay(database, Selection(parked), actor=actor, reporters=reporters)
    return len(new)


async def _import(
    database: Database, lines: Sequence[ExportedDeadLetter], actor: str
) -> dict[int, ExportedDeadLetter]:
    now = datetime.now(UTC)
    rows = {row["fingerprint"]: (row, line) for line in lines if (row := line.row(now))}
    async with database.write() as connection:
        new = await dead_letter_batch.keep(connection, [row for row, _ in rows.values()])
        found = await dead_letters.by_fingerprint(connection, new)
        imported = {row.id: rows[fingerprint][1] for fingerprint, row in found.items()}
        entries = [(id_, entry) for id_, line in imported.items() for entry in _history(line, now, actor)]
        await dead_letters.write_history(connection, entries)
        added = [(row.id, dict(row._mapping)) for row in found.values() if row.status == Status.OPEN]
        await outbox.tell(connection, of_dead_letters(added, now))
    return imported


def _history(line: ExportedDeadLetter, now: datetime, actor: str) -> list[documents.DeadLetterEntry]:
    outcome = f"was dead letter {line.id} where it came from"
    entry = documents.DeadLetterEntry(at=now, actor=actor, action=Action.IMPORTED, outcome=outcome, detail="")
    return [*line.history, entry]
