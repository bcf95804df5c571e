"""Hypothesis strategies for streams of messages, and for what a stream has to end in."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from tests.support import rules
from tests.support.databases import Stored
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    NOW,
    OPERATIONS,
    REPORT,
    REPORTS,
    Batches,
    announcement_body,
    message,
    report_body,
)
from worker.model.messages import Message

PATH = ["CREATED", "INITIATED", "DISPATCHED", "PROCESSING", "TIMEOUT"]
BRANCHES = [["SUCCESS", "COMPLETED"], ["FAILURE"], ["CANCELLED"]]
MOMENTS = [NOW + timedelta(days=days, microseconds=1) for days in (-20_000, -1, 0, 1, 20_000)]
SHOWING_DISPATCH = {"DISPATCHED", "PROCESSING", "SUCCESS", "COMPLETED"}

Device = tuple[str, bool, list[tuple[str, datetime]]]
"""State, flag, and the history as documents have it."""


@dataclass
class Fleet:
    """Messages without conflicts: each device follows one branch, each operation has one type and one size.

    Beside them what they end in, whatever their order: a function of the *set* of messages.
    """

    messages: list[Message] = field(default_factory=list)
    operations: dict[UUID, tuple[str | None, str, dict[str, int], dict[UUID, Device]]] = field(
        default_factory=dict
    )
    """Type, state, counters, and each device."""
    parked: Counter[tuple[str, UUID | None, UUID | None]] = field(default_factory=Counter)

    def add_report(self, draw: st.DrawFn, body: dict[str, Any]) -> None:
        """Add a report with an id of its own, wherever that stands."""
        id_ = f"message {len(self.messages)}"
        match draw(st.sampled_from(["report_id", "message_id", "body"])):
            case "report_id":
                self.messages.append(message({**body, "report_id": id_}))
            case "message_id":
                self.messages.append(message(body, message_id=id_))
            case _:
                self.messages.append(message({**body, "nonce": id_}))

    def add_operation(self, draw: st.DrawFn, operation: UUID) -> None:
        """Add an operation's reports and announcements."""
        devices: dict[UUID, Device] = {}
        listed: list[UUID] = []
        types: set[str] = set()
        for device in DEVICES[: draw(st.integers(0, 3))]:
            branch = draw(st.sampled_from(BRANCHES))
            states = draw(st.lists(st.sampled_from(PATH[1:] + branch), max_size=5))
            registration = draw(st.sampled_from(["report", "announcement", "both", "none"]))
            if registration in ("report", "both"):
                states.append("CREATED")
            if registration in ("announcement", "both"):
                listed.append(device)
            named = draw(st.sampled_from([{}, {"operation_type": "CONVERGE"}]))
            times: dict[str, datetime] = {}
            for state in states:
                at = draw(st.sampled_from(MOMENTS))
                body = report_body(operation, device, state, occurred_at=at.isoformat(), **named)
                self.add_report(draw, body)
                times[state] = min(at, times.get(state, at))
            if registration == "none":
                self.parked["unknown_device_operation", operation, device] = len(states)
            else:
                highest = max([*states, "CREATED"], key=(PATH + branch).index)
                if device in listed:
                    times["CREATED"] = min(NOW, times.get("CREATED", NOW))
                history = [(state, times[state]) for state in PATH + branch if state in times]
                devices[device] = highest, not SHOWING_DISPATCH.isdisjoint(states), history
                types.update(named.values() if states else ())
        lists = [listed] if listed else []
        lists += draw(st.lists(st.lists(st.sampled_from(listed)) if listed else st.just([]), max_size=1))
        size = draw(st.none() | st.integers(0, 4))
        for some in lists:
            more = {} if size is None else {"device_count": size}
            self.messages.append(message(announcement_body(operation, some, **more), ANNOUNCEMENT))
            types.add("CONVERGE")
        if devices or lists:
            # Which list came first does not matter: each brings the devices that it makes expected.
            expected = (0 if size is None else size) if lists else None
            held = [(state, dispatched) for state, dispatched, _ in devices.values()]
            state = rules.operation_state_of(held, expected)
            self.operations[operation] = next(iter(types), None), state, rules.counters_of(held), devices

    def assert_is(self, stored: Stored) -> None:
        """What is stored is what all of the messages end in."""
        assert ended(stored) == self.operations
        assert stored.dead_letters == +self.parked


def ended(stored: Stored) -> dict[UUID, tuple[str | None, str, dict[str, int], dict[UUID, Device]]]:
    """What is stored, as a fleet has it."""
    return {
        id_: (
            operation.operation_type,
            operation.state,
            operation.counters,
            {
                device: (found.state, found.dispatched, found.reached)
                for device, found in operation.devices.items()
            },
        )
        for id_, operation in stored.operations.items()
    }


def cut(draw: st.DrawFn, messages: Sequence[Message]) -> Batches:
    """Messages cut into batches anywhere."""
    batches: list[list[Message]] = [[]]
    for one in messages:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(one)
    return batches


@st.composite
def arrangements(draw: st.DrawFn) -> tuple[Batches, Fleet]:
    """A fleet's messages in any order, any of them again, cut into any batches."""
    fleet = Fleet()
    for operation in OPERATIONS[: draw(st.integers(1, 2))]:
        fleet.add_operation(draw, operation)
    again = draw(st.lists(st.sampled_from(fleet.messages), max_size=5)) if fleet.messages else []
    return cut(draw, draw(st.permutations(fleet.messages + again))), fleet


states = st.just("CREATED") | st.sampled_from([some for all_ in rules.SPELLINGS.values() for some in all_])
types = st.sampled_from(["CONVERGE", "REBOOT", None])
ids = st.sampled_from(["one", "two", "three", "four", "five", "six", None])
operations = st.sampled_from(OPERATIONS)
devices = st.sampled_from(DEVICES)
reports = st.builds(report_body, operations, devices, states, operation_type=types, report_id=ids)
announcements = st.builds(
    announcement_body,
    operations,
    st.none() | st.lists(devices, max_size=4),
    operation_type=st.sampled_from(["CONVERGE", "REBOOT"]),
    device_count=st.none() | st.integers(0, 4),
)
garbage: st.SearchStrategy[object] = st.sampled_from([None, [], {}, {"state": "SUCCESS"}, "CREATED", 10])

bulks = st.lists(reports | garbage, max_size=5).map(lambda bodies: {"reports": bodies})
anything = st.one_of(
    st.builds(message, reports, st.sampled_from([None, REPORT]), ids),
    st.builds(message, announcements, st.just(ANNOUNCEMENT)),
    st.builds(message, bulks, st.just(REPORTS), ids),
    st.builds(message, garbage | st.binary(max_size=8), st.sampled_from([None, REPORTS, ANNOUNCEMENT, "?"]), ids),
)


@st.composite
def streams(draw: st.DrawFn) -> Batches:
    """Any messages at all, conflicts and garbage included, cut into any batches."""
    return cut(draw, draw(st.lists(anything, max_size=25)))
