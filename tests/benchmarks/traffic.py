"""What every consumer gets: fleets' lives as messages with ids, 1% of them bad, some out of order, some twice.

A roll-out begins every minute and lives for some minutes, so that at any time most reports are about the same few
operations: their counters are contended, as in life.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import islice
from random import Random
from typing import Any
from uuid import UUID

from tests.support.rules import SPELLINGS
from worker import jsonl
from worker.model.identity import body_id
from worker.model.messages import ANNOUNCEMENT, REPORT, REPORTS, Message
from worker.simulate import Disorder, simulate

REPORTS_OF_A_DEVICE = 4.4
"""In the mean, duplicates and all."""
DEVICES = 300
"""Of one operation."""
BULK = 100
"""Reports in a bulk message."""
BAD = Disorder(disorder=0.1, duplicates=0.02, conflicts=0.015, malformed=0.004)
UNKNOWN = 0.003
"""Of a report to be accompanied by one about a device that nobody registers."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What there is when everything was processed, whatever the order."""

    received: int
    """Reports, announcements and unreadable messages, as the product counts them."""
    device_operations: int
    settled: int
    """Rows of history and open dead letters together: one for each registration, report and unreadable body."""

    def plus(self, other: "Expected") -> "Expected":
        """What both together make."""
        return Expected(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Messages in their order, announcements before what is about them, and what is to come of them."""

    messages: Sequence[Message]
    expected: Expected

    @classmethod
    def of(cls, reports: int, seed: int, disorder: Disorder = BAD, unknown: float = UNKNOWN) -> "Traffic":
        """About so many reports; the same for the same arguments, and never the same ids for another seed."""
        operations = max(1, round(reports / REPORTS_OF_A_DEVICE / DEVICES))
        devices = max(1, round(reports / REPORTS_OF_A_DEVICE / operations))
        return cls.from_lines(_lines(operations, devices, seed, disorder, unknown))

    @classmethod
    def of_one(cls, devices: int, reports: int, seed: int) -> "Traffic":
        """One operation: the announcement of all its devices, and at most `reports` of the messages after it."""
        return cls.from_lines(islice(_lines(1, devices, seed, BAD, UNKNOWN), 1 + reports))

    @classmethod
    def from_lines(cls, lines: Iterator[str]) -> "Traffic":
        """The messages of JSON lines."""
        messages, settled = [], set[str]()
        devices = 0
        for line in lines:
            read = jsonl.as_message(line.encode())
            # As `deviceops publish` does: a line that comes twice has the same id twice.
            id_ = read.message_id or body_id(read.body)
            message = replace(read, type=read.type or REPORT, message_id=id_)
            messages.append(message)
            if message.type == ANNOUNCEMENT:
                devices += len(json.loads(message.body)["device_ids"])
            else:
                settled.add(_identity(line))
        return cls(messages, Expected(len(messages), devices, devices + len(settled)))

    def lines(self) -> Iterator[str]:
        """The messages as JSON lines."""
        return map(_line, self.messages)

    def in_bulk(self) -> "Traffic":
        """The same with up to a hundred reports in a message; what cannot be one of many stays alone."""
        return Traffic(list(_in_bulk(self.messages)), self.expected)


def _lines(operations: int, devices: int, seed: int, disorder: Disorder, unknown: float) -> Iterator[str]:
    random = Random(f"unknown {seed}")  # not the numbers that the simulation draws, and makes ids of
    for line in simulate(operations, devices, seed, disorder):
        yield line
        if random.random() < unknown and (body := _report_in(line)) is not None:
            ids = {name: str(UUID(int=random.getrandbits(128), version=4)) for name in ("device_id", "report_id")}
            yield json.dumps({**body, **ids})


def _in_bulk(messages: Sequence[Message]) -> Iterator[Message]:
    waiting: list[bytes] = []

    def bulk() -> Iterator[Message]:
        if waiting:
            body = b'{"reports": [' + b", ".join(waiting) + b"]}"
            yield Message(body, messages[0].received_at, message_id=body_id(body), type=REPORTS)
            waiting.clear()

    for message in messages:
        if message.type == REPORT and message.body.endswith(b"}"):
            waiting.append(message.body)
            if len(waiting) == BULK:
                yield from bulk()
        elif message.type == REPORT:  # half a body: nobody minds when it comes
            yield message
        else:
            yield from bulk()
            yield message
    yield from bulk()


def _line(message: Message) -> str:
    if message.type == REPORT:
        return message.body.decode()
    envelope = {"type": message.type, "message_id": message.message_id, "body": json.loads(message.body)}
    return json.dumps(envelope)


def _report_in(line: str) -> dict[str, Any] | None:
    """The report of a line, None if it has none that can be read."""
    try:
        body: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    is_report = isinstance(body.get("service_id"), str) and "device_id" in body and body.get("state") in SPELLINGS
    return body if is_report else None


def _identity(line: str) -> str:
    """What makes a line that comes again the same."""
    body = _report_in(line)
    return line if body is None else str(body["report_id"])
