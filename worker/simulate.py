"""Generated traffic as JSON lines: announcements and reports, with configurable disorder.

Deterministic: the same arguments give the same bytes; no clock and no shared random source is read.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from statemachine import State
from worker.model.messages import ANNOUNCEMENT

START = datetime(2026, 1, 1, tzinfo=UTC)
SERVICE = "drift-service"
OPERATION_TYPE = "CONVERGE"

_PATHS: tuple[tuple[int, tuple[State, ...]], ...] = (
    # Devices per thousand, and their states after CREATED.
    (450, (State.INITIATED, State.DISPATCHED, State.PROCESSING, State.SUCCESS, State.COMPLETED)),
    (370, (State.INITIATED, State.DISPATCHED, State.PROCESSING, State.SUCCESS)),
    (70, (State.INITIATED, State.DISPATCHED, State.PROCESSING, State.FAILURE)),
    (40, (State.INITIATED, State.FAILURE)),
    (30, (State.INITIATED, State.DISPATCHED, State.TIMEOUT)),
    (20, (State.INITIATED, State.DISPATCHED, State.TIMEOUT, State.SUCCESS)),
    (20, (State.INITIATED, State.CANCELLED)),
)
_CONFLICTING = {
    State.SUCCESS: State.FAILURE,
    State.COMPLETED: State.FAILURE,
    State.FAILURE: State.SUCCESS,
    State.CANCELLED: State.FAILURE,
}


@dataclass(frozen=True, slots=True)
class Disorder:
    """Faults in the traffic, each as a probability from 0 to 1."""

    disorder: float = 0.0
    """A report is delayed behind later ones."""
    duplicates: float = 0.0
    """A report is sent twice."""
    conflicts: float = 0.0
    """A settled device is also reported in a conflicting state."""
    malformed: float = 0.0
    """A report is followed by a malformed copy."""
    early: float = 0.0
    """A device is reported before its operation is announced."""
    silent: float = 0.0
    """A device falls silent: from some report on it sends none, or none at all."""


def simulate(
    operations: int, devices: int, seed: int, disorder: Disorder, timeouts: Mapping[str, float] | None = None
) -> Iterator[str]:
    """The lines of `operations` operations with `devices` devices each, in the order of arrival.

    `timeouts` are seconds by kind, which the announcements have.
    """
    random = Random(seed)  # noqa: S311  # a simulation, not a secret
    arrivals: list[tuple[float, int, str]] = []
    for number in range(operations):
        begin = 60.0 * number
        for arrival, line in _operation(random, devices, begin, disorder, timeouts):
            arrivals.append((arrival, len(arrivals), line))
    arrivals.sort()
    return (line for _, _, line in arrivals)


def _operation(
    random: Random, devices: int, begin: float, disorder: Disorder, timeouts: Mapping[str, float] | None
) -> Iterator[tuple[float, str]]:
    operation_id = _uuid(random)
    device_ids = [_uuid(random) for _ in range(devices)]
    yield begin, _announcement(random, operation_id, device_ids, begin, timeouts)
    for device_id in device_ids:
        yield from _device(random, operation_id, device_id, begin, disorder)


def _announcement(
    random: Random,
    operation_id: UUID,
    device_ids: list[UUID],
    begin: float,
    timeouts: Mapping[str, float] | None,
) -> str:
    return json.dumps(
        {
            "type": ANNOUNCEMENT,
            "message_id": str(_uuid(random)),
            "body": {
                "id": str(operation_id),
                "operation_type": OPERATION_TYPE,
                "schedule_type": "IMMEDIATE",
                "schedule_args": {},
                "operation_device_query": {"group": "simulated"},
                "arguments": {"converge_with_provision": True},
                "reason": "a simulated roll-out",
                "created_at": _time(begin),
                "created_by": str(_uuid(random)),
                "device_ids": [str(device_id) for device_id in device_ids],
                **({"timeouts": dict(timeouts)} if timeouts else {}),
            },
        }
    )


def _device(
    random: Random, operation_id: UUID, device_id: UUID, begin: float, disorder: Disorder
) -> Iterator[tuple[float, str]]:
    [path] = random.choices([path for _, path in _PATHS], weights=[weight for weight, _ in _PATHS])
    states = list(path)
    if states[-1] in _CONFLICTING and random.random() < disorder.conflicts:
        states.append(_CONFLICTING[states[-1]])
    if disorder.silent and random.random() < disorder.silent:
        del states[random.randrange(len(path) - 1) :]
    lead = 3_600.0 if random.random() < disorder.early else 0.0
    now = begin
    for state in states:
        now += random.expovariate(1 / 30)
        line = _report(random, operation_id, device_id, state, now)
        arrival = now - lead + (random.uniform(0, 300) if random.random() < disorder.disorder else 0)
        yield arrival, line
        if random.random() < disorder.duplicates:
            yield arrival + random.uniform(0, 300), line
        if random.random() < disorder.malformed:
            yield arrival, random.choice(_MALFORMED)(line)


def _report(random: Random, operation_id: UUID, device_id: UUID, state: State, at: float) -> str:
    return json.dumps(
        {
            "operation_id": str(operation_id),
            "device_id": str(device_id),
            "operation_type": OPERATION_TYPE,
            "state": state.name,
            "service_id": SERVICE,
            "reason": f"simulated {state.name.lower()}",
            "report_id": str(_uuid(random)),
            "occurred_at": _time(at),
        }
    )


_MALFORMED = (
    lambda line: line.replace('"state": "', '"state": "UN'),
    lambda line: line.replace('"device_id"', '"device"'),
    lambda line: line.replace('"service_id": "drift-service"', '"service_id": 7'),
    lambda line: line[: len(line) // 2],
)
"""Malformed copies of a line: an unknown state, a missing field, a wrong type, a truncated message."""


def _uuid(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128), version=4)


def _time(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
