"""A rejected message as it is kept: enough to understand it, and to process it again as if it just came."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from typing import Any, cast
from uuid import UUID

from pydantic_core import to_jsonable_python

from worker.model.identity import body_id, identity, pair_id
from worker.model.messages import Incoming, Message
from worker.model.outcomes import Example, Reason, Status
from worker.model.parsing import NAMING, named_in
from worker.model.text import clean, shown

DEADLY = 2
"""Workers that a given-up message may have killed before the next one keeps it unread."""


@dataclass(slots=True)
class DeadLetter:
    """A message that was rejected, or parked, and why.

    `report` is None if no report of it can be told apart: the message is unreadable, or is not trusted, so that
    it must not take the place of the report whose id it uses.
    """

    reason: Reason
    detail: str
    message: Message
    report: Incoming | None
    status: Status = Status.OPEN

    @property
    def fingerprint(self) -> UUID:
        """What makes it the same dead letter: the report's identity, or else the message's id and body."""
        if self.report is not None:
            report = self.report.report
            known_by = f"report {pair_id(report.operation_id, report.device_id)}/{self.report.key[1]}"
        else:
            own_id = body_id(self.message.body)
            known_by = f"message {identity(self.message.message_id) or own_id}/{own_id}"
        return UUID(bytes=sha1(known_by.encode(), usedforsecurity=False).digest()[:16], version=5)

    def row(self, now: datetime) -> dict[str, Any]:
        """The row to insert; `now` is when it was resolved, if it was."""
        message = self.message
        origin = message.origin()
        return {
            "fingerprint": self.fingerprint,
            "reason": self.reason,
            "detail": self.detail,
            "status": self.status,
            "attempts": 1,
            "received_at": message.received_at,
            "resolved_at": None if self.status is Status.OPEN else now,
            **self.about(),
            "message_id": identity(message.message_id),
            "type": message.type,
            "sent_at": message.sent_at,
            "exchange": clean(origin.exchange),
            "routing_key": clean(origin.routing_key),
            "properties": _storable(origin.properties),
            "headers": _storable(origin.headers),
            "body": message.body,
        }

    def example(self) -> Example:
        """It by what people look for it with."""
        about = self.about()
        operation_id, device_id = (cast(UUID | None, about[name]) for name in ("operation_id", "device_id"))
        return Example(self.reason, self.message.message_id, operation_id, device_id)

    def about(self) -> dict[str, UUID | str | None]:
        """What the row says of the report: what it names, as far as that can be read, and its identity."""
        device_operation_id, report_id = self.report.key if self.report else (None, None)
        named = self._named()
        return {
            **{name: named.get(name) for name in NAMING},
            "device_operation_id": device_operation_id,
            "report_id": report_id,
        }

    def _named(self) -> Mapping[str, UUID | str]:
        if self.report is not None:
            return {name: getattr(self.report.report, name) for name in NAMING}
        # What the broker gave up may kill who reads it.
        deadly = self.message.given_up is not None and self.message.redeliveries >= DEADLY
        return {} if deadly else named_in(self.message)


def _storable(table: Mapping[str, Any]) -> Any:
    """What JSON has no form for in its nearest one: times and decimals as text, bytes in base64, NaN as text."""
    if not table:  # as most headers are
        return {}
    try:
        document = to_jsonable_python(dict(table), bytes_mode="base64", fallback=repr)
        return json.loads(json.dumps(document), parse_constant=str)  # pydantic lets NaN pass, PostgreSQL does not
    except ValueError:  # nested beyond all measure
        return {"unreadable": shown(dict(table))}
