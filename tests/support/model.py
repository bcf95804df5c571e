"""An independent model, in the plainest way: the rules, dictionaries, one event at a time.

It imports nothing of the product; where product and model disagree, one of them is wrong.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from tests.support.rules import (
    DISPATCHED_WHEN_APPLIED,
    DISPATCHED_WHEN_LATE,
    FAILED,
    SETTLED,
    STATES,
    VERDICTS,
    counters_of,
    operation_state_of,
)

Pair = tuple[UUID, UUID]
"""An operation and a device."""


@dataclass(frozen=True)
class Report:
    """A readable report; `id` is its identity, and `at` when the state was reached, wherever those came from."""

    operation: UUID
    device: UUID
    state: str
    id: str
    at: datetime
    operation_type: str | None = None


@dataclass(frozen=True)
class Announcement:
    """A readable announcement; `id` is that of its message, if it has one, and `at` when it was announced."""

    operation: UUID
    operation_type: str
    at: datetime
    devices: tuple[UUID, ...] | None = None
    device_count: int | None = None
    id: str | None = None
    timeouts: dict[str, float] | None = None
    deadline_in: float | None = None
    abort: tuple[float, int, str] | None = None


@dataclass(frozen=True)
class Unreadable:
    """A message, or a part of one, that cannot be read; the same identity is the same message again."""

    identity: str


Event = Report | Announcement | Unreadable


@dataclass
class Operation:
    """What is known of an operation beside its devices."""

    operation_type: str | None = None
    expected: int | None = None
    timeouts: dict[str, float] = field(default_factory=dict)
    deadline: float | None = None
    abort: tuple[float, int, str] | None = None
    has_tripped: bool = False
    is_cancelling: bool = False


@dataclass
class DeviceOperation:
    """A registered device operation.

    `history` holds (state, verdict) of what was applied or late, `reached` the earliest time of each state that
    was applied, late or repeated. The times are those of the model's clock.
    """

    state: str
    dispatched: bool = False
    history: list[tuple[str, str]] = field(default_factory=list)
    reached: dict[str, datetime] = field(default_factory=dict)
    registered_at: float = 0
    dispatched_at: float | None = None
    reported_at: float = 0

    def document(self) -> list[tuple[str, datetime]]:
        """The history as documents have it: in the order of STATES, of which it has a chain."""
        return [(state, self.reached[state]) for state in STATES if state in self.reached]


@dataclass
class DeadLetter:
    """An open dead letter; an unreadable message has no report."""

    reason: str
    report: Report | None


def kind_over(operation: Operation, device: DeviceOperation, clock: float) -> str | None:
    """The kind of timeout by which a device operation is over, None if by none."""
    if device.state in SETTLED:
        return None
    moments = {}
    if device.dispatched_at is None and "pending" in operation.timeouts:
        moments["pending"] = device.registered_at + operation.timeouts["pending"]
    if device.dispatched_at is not None and "in_progress" in operation.timeouts:
        moments["in_progress"] = device.dispatched_at + operation.timeouts["in_progress"]
    if device.dispatched_at is not None and "step" in operation.timeouts:
        moments["step"] = device.reported_at + operation.timeouts["step"]
    if "total" in operation.timeouts:
        moments["total"] = device.registered_at + operation.timeouts["total"]
    if operation.deadline is not None:
        moments["deadline"] = operation.deadline
    over = [kind for kind in moments if moments[kind] <= clock]
    return min(over, key=lambda kind: moments[kind]) if over else None


LATER_THAN_ALL = datetime.max.replace(tzinfo=UTC)
"""When a device operation was timed out, for the model."""


class Model:
    """Takes events one at a time, and knows what the product should then hold."""

    def __init__(self) -> None:
        self.clock: float = 0
        self.operations: dict[UUID, Operation] = {}
        self.device_operations: dict[Pair, DeviceOperation] = {}
        self.seen: dict[Pair, set[str]] = {}
        self.announcements: set[tuple[UUID, str]] = set()
        self.unreadable: set[str] = set()
        self.dead_letters: list[DeadLetter] = []
        self.received = 0
        self.duplicate = 0
        self.announced = 0
        self.released = 0
        self.verdicts: Counter[str] = Counter()
        self.dead_lettered: Counter[str] = Counter()

    def take(self, event: Event) -> None:
        """One event, as it arrives."""
        self.received += 1
        if isinstance(event, Report):
            self._take_report(event)
        elif isinstance(event, Announcement):
            self._take_announcement(event)
        else:
            self._take_unreadable(event)

    def replay(self) -> None:
        """Every open dead letter once more, the oldest first."""
        for letter in list(self.dead_letters):
            if letter.report is None or not any(letter is still for still in self.dead_letters):
                continue
            reason = self._judge(letter.report)
            if reason is not None:
                letter.reason = reason
                continue
            self.dead_letters = [still for still in self.dead_letters if still is not letter]
            if letter.report.state == "CREATED":
                self._release((letter.report.operation, letter.report.device))

    def end_transaction(self) -> None:
        """See which abort thresholds are crossed."""
        for id_, operation in self.operations.items():
            if operation.abort is None or operation.has_tripped:
                continue
            percent, least, action = operation.abort
            states = [device.state for device in self.devices_of(id_).values()]
            settled = [state for state in states if state in SETTLED]
            failed = [state for state in settled if state in FAILED]
            if len(settled) >= least and len(failed) / max(len(settled), 1) * 100 >= percent:
                operation.has_tripped = True
                operation.is_cancelling = action == "cancel"

    def cancel(self) -> None:
        """Cancel what is not settled of the operations that are aborted."""
        for (id_, _), device in self.device_operations.items():
            if self.operations[id_].is_cancelling and device.state not in SETTLED:
                self._apply(device, "CANCELLED")
        for operation in self.operations.values():
            operation.is_cancelling = False

    def expire(self) -> None:
        """Time out what is over."""
        for (id_, _), device in self.device_operations.items():
            if kind_over(self.operations[id_], device, self.clock) is not None:
                self._apply(device, "TIMEOUT")

    def _apply(self, device: DeviceOperation, state: str) -> None:
        device.state = state
        device.history.append((state, "applied"))
        device.reached.setdefault(state, LATER_THAN_ALL)
        self.received += 1
        self.verdicts["applied"] += 1

    def tally(self) -> dict[str, object]:
        """The document that `ingest --json` prints."""
        return {
            "received": self.received,
            "applied": self.verdicts["applied"],
            "late": self.verdicts["late"],
            "repeated": self.verdicts["repeated"],
            "duplicate": self.duplicate,
            "announced": self.announced,
            "released": self.released,
            "dead_lettered": {reason: n for reason, n in self.dead_lettered.items() if n > 0},
        }

    def devices_of(self, operation: UUID) -> dict[UUID, DeviceOperation]:
        """The registered device operations of one operation, by device."""
        return {device: found for (owner, device), found in self.device_operations.items() if owner == operation}

    def counters(self, operation: UUID) -> dict[str, int]:
        """The counters of one operation, by recount."""
        found = self.devices_of(operation).values()
        return counters_of([(device.state, device.dispatched) for device in found])

    def operation_state(self, operation: UUID) -> str:
        """The state of one operation."""
        found = self.devices_of(operation).values()
        return operation_state_of(
            [(device.state, device.dispatched) for device in found], self.operations[operation].expected
        )

    def _take_report(self, report: Report) -> None:
        pair = (report.operation, report.device)
        ids = self.seen.setdefault(pair, set())
        if report.id in ids:
            self.duplicate += 1
            return
        ids.add(report.id)
        reason = self._judge(report)
        if reason is not None:
            self.dead_lettered[reason] += 1
            self.dead_letters.append(DeadLetter(reason, report))
        elif report.state == "CREATED":
            self._release(pair)

    def _judge(self, report: Report) -> str | None:
        """Apply a report whose id is new; gives the reason if it is not accepted."""
        pair = (report.operation, report.device)
        if pair not in self.device_operations and report.state != "CREATED":
            return "unknown_device_operation"
        known_type = None
        if report.operation in self.operations:
            known_type = self.operations[report.operation].operation_type
        if report.operation_type is not None and known_type is not None and report.operation_type != known_type:
            return "operation_type_mismatch"
        if pair in self.device_operations:
            device = self.device_operations[pair]
            was_dispatched = device.dispatched
            verdict = VERDICTS[device.state, report.state]
            if verdict == "conflict":
                return "conflict"
            if verdict == "applied":
                device.state = report.state
                device.history.append((report.state, "applied"))
                if report.state in DISPATCHED_WHEN_APPLIED:
                    device.dispatched = True
            elif verdict == "late":
                device.history.append((report.state, "late"))
                if report.state in DISPATCHED_WHEN_LATE:
                    device.dispatched = True
            if report.state not in device.reached or report.at < device.reached[report.state]:
                device.reached[report.state] = report.at
            device.reported_at = self.clock
            if device.dispatched and not was_dispatched:
                device.dispatched_at = self.clock
            self.verdicts[verdict] += 1
        else:
            if report.operation not in self.operations:
                self.operations[report.operation] = Operation()
            self._register(pair, report.at)
            self.verdicts["applied"] += 1
        if known_type is None:
            self.operations[report.operation].operation_type = report.operation_type
        return None

    def _register(self, pair: Pair, at: datetime) -> None:
        self.device_operations[pair] = DeviceOperation(
            "CREATED",
            False,
            [("CREATED", "applied")],
            {"CREATED": at},
            registered_at=self.clock,
            reported_at=self.clock,
        )

    def _release(self, pair: Pair) -> None:
        """Take up the reports that waited for this pair, in the order in which they arrived."""
        waiting = []
        for letter in self.dead_letters:
            if letter.reason == "unknown_device_operation":
                assert letter.report is not None
                if (letter.report.operation, letter.report.device) == pair:
                    waiting.append(letter)
        for letter in waiting:
            assert letter.report is not None
            self.released += 1
            reason = self._judge(letter.report)
            if reason is None:
                self.dead_letters.remove(letter)
            else:
                self.dead_lettered[reason] += 1
                letter.reason = reason

    def _take_announcement(self, announcement: Announcement) -> None:
        self.announced += 1
        if announcement.id is not None:
            if (announcement.operation, announcement.id) in self.announcements:
                return
            self.announcements.add((announcement.operation, announcement.id))
        operation = self.operations.setdefault(announcement.operation, Operation())
        operation.operation_type = announcement.operation_type
        if announcement.device_count is not None:
            operation.expected = announcement.device_count
        elif operation.expected is None and announcement.devices is not None:
            operation.expected = len(set(announcement.devices))
        if announcement.timeouts is not None:
            operation.timeouts = announcement.timeouts
        if announcement.deadline_in is not None:
            operation.deadline = self.clock + announcement.deadline_in
        if announcement.abort is not None and announcement.abort != operation.abort:
            operation.abort = announcement.abort
            operation.has_tripped = operation.is_cancelling = False
        for device in announcement.devices or ():
            pair = (announcement.operation, device)
            if pair not in self.device_operations:
                self._register(pair, announcement.at)
                self._release(pair)
            else:
                created = self.device_operations[pair].reached
                created["CREATED"] = min(created["CREATED"], announcement.at)

    def _take_unreadable(self, event: Unreadable) -> None:
        if event.identity in self.unreadable:
            self.duplicate += 1
            return
        self.unreadable.add(event.identity)
        self.dead_lettered["malformed"] += 1
        self.dead_letters.append(DeadLetter("malformed", None))
