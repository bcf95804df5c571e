"""Dead letters: rejected messages, with all that is needed to explain them and to process them again."""

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
from worker.model.outcomes import DeadLetterExample, Reason, Status
from worker.model.parsing import NAMING, named_in
from worker.model.text import clean, shown

DEADLY = 2
"""Crashes that an abandoned message may have caused before it is kept without being parsed."""


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
        """The identity of a dead letter: the report's identity, or else the message's id and body."""
        if self.report is not None:
            report = self.report.report
            known_by = f"report {pair_id(report.operation_id, report.device_id)}/{self.report.key[1]}"
        else:
            own_id = body_id(self.message.body)
            known_by = f"message {identity(self.message.message_id) or own_id}/{own_id}"
        return UUID(bytes=sha1(known_by.encode(), usedforsecurity=False).digest()[:16], version=5)

    @property
    def size(self) -> int:
        """Bytes of its body, and of its headers as they are stored."""
        return len(self.message.body) + len(json.dumps(_storable(self.message.origin().headers)))

    def row(self, now: datetime) -> dict[str, Any]:
        """The row to insert; `now` is the time of its resolution, if it is resolved."""
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

    def example(self, id_: int) -> DeadLetterExample:
        """Its ids, for the log; `id_` is that of its row."""
        about = self.about()
        operation_id, device_id = (cast(UUID | None, about[name]) for name in ("operation_id", "device_id"))
        return DeadLetterExample(self.reason, id_, self.message.message_id, operation_id, device_id)

    def about(self) -> dict[str, UUID | str | None]:
        """The columns about the report: the ids that it names, where readable, and its identity."""
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
        # Parsing an abandoned message may crash the process.
        deadly = self.message.abandoned is not None and self.message.redeliveries >= DEADLY
        return {} if deadly else named_in(self.message)


def _storable(table: Mapping[str, Any]) -> Any:
    """A JSON document of AMQP values: times, decimals and NaN as text, bytes in base64."""
    if not table:  # as most headers are
        return {}
    try:
        document = to_jsonable_python(dict(table), bytes_mode="base64", fallback=repr)
        return json.loads(json.dumps(document), parse_constant=str)  # pydantic lets NaN pass, PostgreSQL does not
    except ValueError:  # nested beyond all measure
        return {"unreadable": shown(dict(table))}
