"""Random streams of messages about small worlds, each message with what it means to the model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from tests.support.model import Announcement, Event, Model, Report, Unreadable
from tests.support.rules import SPELLINGS, STATES
from worker.model.messages import Message

START = datetime(2026, 1, 31, 8, tzinfo=UTC)
MOMENTS = {
    "2026-01-31T09:00:00Z": START + timedelta(hours=1),
    "1969-07-20t20:17:40.5+01:00": datetime(1969, 7, 20, 19, 17, 40, 500_000, tzinfo=UTC),
}
TYPES = ["CONVERGE", "REBOOT", "UPGRADE"]
ACTIONS = ["cancel", "notify"]


@dataclass
class Sent:
    """A message, and what it means to the model."""

    message: Message
    events: list[Event]


@dataclass
class World:
    """A few operations and devices of their own, the stream of messages about them, and its model."""

    random: Random
    operations: list[UUID] = field(init=False)
    devices: list[UUID] = field(init=False)
    types: dict[UUID, str] = field(init=False)
    branches: dict[tuple[UUID, UUID], str] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    model: Model = field(default_factory=Model)

    def __post_init__(self) -> None:
        self.operations = [self.uuid() for _ in range(self.random.randint(2, 3))]
        self.devices = [self.uuid() for _ in range(self.random.randint(2, 4))]
        self.types = {operation: self.random.choice(TYPES) for operation in self.operations}
        for _ in range(self.random.randint(10, 40)):
            self.sent.append(self.some_message())

    def uuid(self) -> UUID:
        """A fresh UUID."""
        return UUID(int=self.random.getrandbits(128), version=4)

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self.random.random() < probability

    def some_message(self) -> Sent:
        """The next message of the stream."""
        kinds = {
            self.report: 65,
            self.announcement: 10,
            self.bulk: 8,
            self.unreadable: 7,
            self.again: 10 if self.sent else 0,
        }
        [kind] = self.random.choices(list(kinds), list(kinds.values()))
        return kind()

    def again(self) -> Sent:
        """A message that was sent before, delivered once more."""
        return self.random.choice(self.sent)

    def report(self) -> Sent:
        """One report in a message of its own."""
        body, has_own_id = self.report_body()
        message_id = None if self.chance(0.3) else self.some_id()
        message = self.message(body, message_id, self.random.choice([None, "device-operation.report"]))
        own_id = body["report_id"] if has_own_id else message_id
        return Sent(message, [self.event(body, own_id or f"body {message.body!r}")])

    def bulk(self) -> Sent:
        """Several reports in one message, some of which may be unreadable."""
        bodies, events = [], list[Event]()
        message_id = None if self.chance(0.3) else self.some_id()
        nonce = self.random.getrandbits(32)
        for index in range(self.random.randint(0, 6)):
            id_of_part = f"{message_id or f'bulk {nonce}'}/{index}"
            if self.chance(0.15):
                bodies.append(self.bad_body())
                events.append(Unreadable(f"{id_of_part} {bodies[-1]}"))
            else:
                body, has_own_id = self.report_body()
                bodies.append(body)
                events.append(self.event(body, body["report_id"] if has_own_id else id_of_part))
        message = self.message({"reports": bodies, "nonce": nonce}, message_id, "device-operation.reports")
        return Sent(message, events)

    def announcement(self) -> Sent:
        """An operation announced, with or without devices and their number."""
        operation = self.random.choice(self.operations)
        operation_type = self.types[operation] if self.chance(0.85) else self.random.choice(TYPES)
        body: dict[str, Any] = {
            "id": self.spelled(operation),
            self.random.choice(["operation_type", "operation"]): operation_type,
        }
        devices, device_count = None, None
        if self.chance(0.6):
            devices = tuple(self.random.choices(self.devices, k=self.random.randint(0, 4)))
            body["device_ids"] = [self.spelled(device) for device in devices]
        if self.chance(0.4):
            device_count = self.random.randint(0, 5)
            body["device_count"] = device_count
        timeouts = deadline_in = abort = None
        if self.chance(0.4):
            kinds = self.random.sample(["pending", "in_progress", "step", "total"], self.random.randint(0, 3))
            timeouts = {kind: float(self.random.choice([60, 120, 600])) for kind in kinds}
            body["timeouts"] = timeouts
        if self.chance(0.1):
            deadline_in = self.random.choice([-30.0, 90.0, 330.0])
            body["deadline"] = (datetime.now(UTC) + timedelta(seconds=deadline_in)).isoformat()
        if self.chance(0.2):
            percent, least = float(self.random.choice([1, 50, 100])), self.random.randint(1, 3)
            abort = (percent, least, self.random.choice(ACTIONS))
            body["abort"] = {"failed_percent": percent, "min_settled": least, "action": abort[2]}
        message_id = None if self.chance(0.3) else self.some_id()
        message = self.message(body, message_id, "operation.announced")
        event = Announcement(
            operation,
            operation_type,
            self.now(),
            devices,
            device_count,
            message_id,
            timeouts,
            deadline_in,
            abort,
        )
        return Sent(message, [event])

    def unreadable(self) -> Sent:
        """A message that nobody can read; which stream sent it can be seen in its bytes."""
        salt = f"{self.operations[0]} {self.random.choice('abc')}".encode()
        kind, body = self.random.choice(
            [
                (None, b'{"operation_id": "' + salt),
                (None, b"\xff\xfe" + salt),
                ("device-operation.report", b'["' + salt + b'"]'),
                ("device-operation.reports", b'{"reports": "' + salt + b'"}'),
                ("operation.announced", b'{"id": "' + salt + b'", "operation_type": "CONVERGE"}'),
                ("device.exploded", b'{"salt": "' + salt + b'"}'),
                (None, json.dumps(self.bad_body()).encode()),
            ]
        )
        message_id = self.random.choice([None, "one", "two"])
        message = Message(body, self.now(), message_id=message_id, type=kind)
        return Sent(message, [Unreadable(f"{message_id} {body!r}")])

    def bad_body(self) -> dict[str, Any]:
        """A report with one field that is missing or wrong."""
        body, _ = self.report_body()
        name = self.random.choice(["operation_id", "device_id", "state", "service_id"])
        if self.chance(0.4):
            del body[name]
        else:
            body[name] = self.random.choice([None, "", "x" * 256, 15, 10.5, True, [], {}])
        return body

    def report_body(self) -> tuple[dict[str, Any], bool]:
        """A report's fields, and whether its id is one of them."""
        operation, device = self.random.choice(self.operations), self.random.choice(self.devices)
        body: dict[str, Any] = {
            "operation_id": self.spelled(operation),
            "device_id": self.spelled(device),
            "state": self.random.choice(SPELLINGS[self.some_state(operation, device)]),
            "service_id": self.random.choice(["drift-service", "s"]),
        }
        if self.chance(0.4):
            body["operation_type"] = self.types[operation] if self.chance(0.85) else self.random.choice(TYPES)
        elif self.chance(0.1):
            body["operation_type"] = None
        if self.chance(0.3):
            body["reason"] = self.random.choice(["", "because", None])
        if self.chance(0.3):
            body["occurred_at"] = self.random.choice(list(MOMENTS))
        if self.chance(0.2):
            body["unknown"] = {"field": [1]}
        has_own_id = self.chance(0.5)
        if has_own_id:
            body["report_id"] = self.some_id()
        return body, has_own_id

    def some_state(self, operation: UUID, device: UUID) -> str:
        """A state that fits the way this device operation goes, most of the time."""
        branch = self.branches.setdefault(
            (operation, device), self.random.choice(["SUCCESS", "COMPLETED", "FAILURE", "CANCELLED"])
        )
        if self.chance(0.3):
            return "CREATED"
        if self.chance(0.3):
            return branch
        return self.random.choice(STATES) if self.chance(0.6) else self.random.choice(STATES[:5])

    def some_id(self) -> str:
        """An id that is fresh, or one that was used before in this stream, for whatever device and state."""
        if self.ids and self.chance(0.25):
            return self.random.choice(self.ids)
        if self.ids and self.chance(0.1):  # the id that a bulk's part has, or will have
            return f"{self.random.choice(self.ids)}/{self.random.randint(0, 2)}"
        self.ids.append(f"id {self.random.getrandbits(64)}")
        return self.ids[-1]

    def event(self, body: dict[str, Any], id_: str) -> Report:
        """What a readable report means."""
        [state] = [name for name, spellings in SPELLINGS.items() if body["state"] in spellings]
        operation_type = body.get("operation_type")
        at = MOMENTS[body["occurred_at"]] if "occurred_at" in body else self.now()
        return Report(UUID(body["operation_id"]), UUID(body["device_id"]), state, id_, at, operation_type)

    def story(self, operation: UUID) -> str:
        """What the stream says of an operation, for a person who looks for the difference."""
        events = [event for sent in self.sent for event in sent.events]
        return "\n".join(
            str(event) for event in events if not isinstance(event, Unreadable) and event.operation == operation
        )

    def spelled(self, id_: UUID) -> str:
        """One of a UUID's spellings."""
        return self.random.choice([str(id_), str(id_).upper()])

    def message(self, body: dict[str, Any], message_id: str | None, kind: str | None) -> Message:
        """A message with this body."""
        return Message(json.dumps(body).encode(), self.now(), message_id=message_id, type=kind)

    def now(self) -> datetime:
        """A later time for each message."""
        return START + timedelta(seconds=len(self.sent))


def interleaved(random: Random, worlds: list[World]) -> list[tuple[World, Sent]]:
    """All streams as one; each keeps its order."""
    turns = [world for world in worlds for _ in world.sent]
    random.shuffle(turns)
    streams: dict[int, Iterator[Sent]] = {id(world): iter(world.sent) for world in worlds}
    return [(world, next(streams[id(world)])) for world in turns]


def batches(random: Random, stream: list[tuple[World, Sent]]) -> Iterator[list[tuple[World, Sent]]]:
    """A stream cut into batches, small ones and large ones."""
    start = 0
    while start < len(stream):
        size = int(2 ** random.uniform(0, 9))
        yield stream[start : start + size]
        start += size
