"""The domain against its rules written out, and the compiled table against `transitions` itself."""

from copy import deepcopy
from itertools import product
from typing import Any

import pytest
from transitions import Machine, MachineError

from statemachine import (
    ABOVE,
    MACHINE,
    SETTLED,
    SPELLINGS,
    Counters,
    State,
    Verdict,
    contribution,
    decide,
    operation_state,
    shows_dispatch,
)
from statemachine.diagram import mermaid
from tests.support import rules

STEPS = {
    ("CREATED", "INITIATED"),
    ("INITIATED", "DISPATCHED"),
    ("DISPATCHED", "PROCESSING"),
    ("PROCESSING", "TIMEOUT"),
    ("TIMEOUT", "SUCCESS"),
    ("SUCCESS", "COMPLETED"),
    ("TIMEOUT", "FAILURE"),
    ("TIMEOUT", "CANCELLED"),
}
"""The direct steps, written out."""

PAIRS = list(product(rules.STATES, rules.STATES))


class Walker:
    """A throw-away model: `transitions` gives it a state and triggers."""

    machine: Machine
    state: State
    trigger: Any

    def __init__(self) -> None:
        self.machine = deepcopy(MACHINE)
        self.machine.add_model(self)

    def reaches(self, start: str) -> set[str]:
        """The states to which real triggers lead from a start, one after another."""
        found: set[str] = set()
        frontier = [start]
        while frontier:
            state = frontier.pop()
            for trigger in self.machine.get_triggers(state):
                self.machine.set_state(State[state], self)
                assert self.trigger(trigger)
                if self.state.name not in found:
                    found.add(self.state.name)
                    frontier.append(self.state.name)
        return found


@pytest.fixture(scope="module")
def walker() -> Walker:
    return Walker()


def test_there_are_nine_states_with_the_codes_of_the_contract() -> None:
    assert {state.name: state.value for state in State} == {
        "CREATED": 10,
        "INITIATED": 20,
        "DISPATCHED": 30,
        "PROCESSING": 40,
        "SUCCESS": 50,
        "FAILURE": 60,
        "CANCELLED": 70,
        "TIMEOUT": 80,
        "COMPLETED": 90,
    }


def test_exactly_the_settled_states_are_settled() -> None:
    assert {state.name for state in SETTLED} == {"TIMEOUT", "SUCCESS", "COMPLETED", "FAILURE", "CANCELLED"}


def test_exactly_the_spellings_of_the_contract_are_accepted() -> None:
    expected = {spelling: name for name, spellings in rules.SPELLINGS.items() for spelling in spellings}
    assert {spelling: state.name for spelling, state in SPELLINGS.items()} == expected


def test_the_table_written_by_hand_covers_every_pair() -> None:
    assert sorted(rules.VERDICTS) == sorted(PAIRS)
    assert len(PAIRS) == 81


@pytest.mark.parametrize(("current", "reported"), PAIRS)
def test_each_verdict_is_that_of_the_table_written_by_hand(current: str, reported: str) -> None:
    assert decide(State[current], State[reported]).value == rules.VERDICTS[current, reported]


@pytest.mark.parametrize("current", rules.STATES)
def test_what_real_triggers_reach_is_what_is_applied(walker: Walker, current: str) -> None:
    reached = walker.reaches(current)
    assert reached == {name for name in rules.STATES if decide(State[current], State[name]) is Verdict.APPLIED}
    assert reached == {state.name for state in ABOVE[State[current]]}


@pytest.mark.parametrize("current", rules.STATES)
def test_what_real_triggers_come_from_is_late(walker: Walker, current: str) -> None:
    below = {name for name in rules.STATES if current in walker.reaches(name)}
    assert below == {name for name in rules.STATES if decide(State[current], State[name]) is Verdict.LATE}


@pytest.mark.parametrize(("current", "reported"), PAIRS)
def test_a_trigger_works_from_below_by_one_step_and_from_nowhere_else(
    walker: Walker, current: str, reported: str
) -> None:
    walker.machine.set_state(State[current], walker)
    if (current, reported) in STEPS:
        assert walker.trigger(reported)
        assert walker.state is State[reported]
    else:
        with pytest.raises((MachineError, AttributeError)):  # wrong from here; no such trigger at all
            walker.trigger(reported)
        assert walker.state is State[current]


def test_the_machine_has_the_eight_direct_steps_and_no_others() -> None:
    steps = [(step.source, step.dest) for step in MACHINE.get_transitions()]
    assert len(steps) == 8
    assert set(steps) == STEPS


def test_the_machine_has_no_automatic_triggers() -> None:
    assert sorted(MACHINE.events) == sorted(above for _, above in STEPS)
    assert not [name for name in MACHINE.get_triggers(*MACHINE.states) if name.startswith("to_")]


def test_the_machine_has_every_state_starts_at_created_and_has_no_model() -> None:
    assert set(MACHINE.states) == set(rules.STATES)
    assert MACHINE.initial == "CREATED"
    assert MACHINE.models == []


@pytest.mark.parametrize(("verdict", "reported"), list(product(Verdict, rules.STATES)))
def test_a_dispatch_shows_when_it_is_applied_or_told_late(verdict: Verdict, reported: str) -> None:
    shown = (verdict is Verdict.APPLIED and reported in ("DISPATCHED", "PROCESSING", "SUCCESS", "COMPLETED")) or (
        verdict is Verdict.LATE and reported in ("DISPATCHED", "PROCESSING")
    )
    assert shows_dispatch(verdict, State[reported]) is shown


CONTRIBUTIONS = [
    # state, dispatched: resolved, dispatched, dispatch failed, failed, success, settled
    ("CREATED", False, (1, 0, 0, 0, 0, 0)),
    ("CREATED", True, (1, 1, 0, 0, 0, 0)),
    ("INITIATED", False, (1, 0, 0, 0, 0, 0)),
    ("INITIATED", True, (1, 1, 0, 0, 0, 0)),
    ("DISPATCHED", False, (1, 0, 0, 0, 0, 0)),
    ("DISPATCHED", True, (1, 1, 0, 0, 0, 0)),
    ("PROCESSING", False, (1, 0, 0, 0, 0, 0)),
    ("PROCESSING", True, (1, 1, 0, 0, 0, 0)),
    ("TIMEOUT", False, (1, 0, 1, 0, 0, 1)),
    ("TIMEOUT", True, (1, 1, 0, 1, 0, 1)),
    ("SUCCESS", False, (1, 0, 0, 0, 1, 1)),
    ("SUCCESS", True, (1, 1, 0, 0, 1, 1)),
    ("COMPLETED", False, (1, 0, 0, 0, 1, 1)),
    ("COMPLETED", True, (1, 1, 0, 0, 1, 1)),
    ("FAILURE", False, (1, 0, 1, 0, 0, 1)),
    ("FAILURE", True, (1, 1, 0, 1, 0, 1)),
    ("CANCELLED", False, (1, 0, 0, 0, 0, 1)),
    ("CANCELLED", True, (1, 1, 0, 0, 0, 1)),
]


@pytest.mark.parametrize(("state", "dispatched", "counts"), CONTRIBUTIONS)
def test_a_device_operation_contributes_by_its_state_and_flag(
    state: str, dispatched: bool, counts: tuple[int, ...]
) -> None:
    *announced, settled = counts
    contributed = contribution(State[state], dispatched)
    assert list(contributed[: len(announced)]) == announced
    assert contributed.settled_device_count == settled
    assert {each.name: contributed.in_state(each) for each in State} == {
        each.name: each.name == state for each in State
    }


def test_counters_add_and_subtract_field_by_field() -> None:
    some = Counters(1, 2, 3, 4, 5, in_created=6)
    assert some.plus(Counters(10, 20, 30, 40, 50, in_created=60)) == Counters(11, 22, 33, 44, 55, in_created=66)
    assert some.plus(Counters(1, 1, 1, 0, 0), 2) == Counters(3, 4, 5, 4, 5, in_created=6)
    assert some.plus(some, -1) == Counters()


def counters(
    registered: int,
    *,
    dispatched: int = 0,
    dispatch_failed: int = 0,
    failed: int = 0,
    success: int = 0,
    settled: int = 0,
) -> Counters:
    return Counters(registered, dispatched, dispatch_failed, failed, success, in_cancelled=settled)


OPERATION_STATES = [
    # 1. no device registered
    ("nothing at all", counters(0), None, "CREATED"),
    ("no device expected", counters(0), 0, "COMPLETED"),
    ("devices expected", counters(0), 3, "CREATED"),
    # 2. all settled, and not fewer than expected
    ("all failed", counters(2, dispatched=2, failed=2, settled=2), 2, "FAILED"),
    ("all failed, nothing announced", counters(2, dispatched=2, failed=2, settled=2), None, "FAILED"),
    ("none reached a device", counters(2, dispatch_failed=2, settled=2), 2, "FAILED"),
    ("one failed, one cancelled", counters(2, dispatched=1, failed=1, settled=2), 2, "FAILED"),
    ("one succeeded, one failed", counters(2, dispatched=2, failed=1, success=1, settled=2), 2, "COMPLETED"),
    (
        "one succeeded, one not reached",
        counters(2, dispatched=1, dispatch_failed=1, success=1, settled=2),
        2,
        "COMPLETED",
    ),
    ("all succeeded", counters(2, dispatched=2, success=2, settled=2), 2, "COMPLETED"),
    ("all cancelled", counters(2, settled=2), 2, "COMPLETED"),
    ("more than expected", counters(3, dispatched=3, success=3, settled=3), 2, "COMPLETED"),
    ("none expected, one came", counters(1, dispatched=1, failed=1, settled=1), 0, "FAILED"),
    # 3. any dispatched or any settled
    ("all settled, fewer than expected", counters(2, dispatched=2, success=2, settled=2), 3, "DISPATCHING"),
    ("all cancelled, fewer than expected", counters(1, settled=1), 2, "DISPATCHING"),
    ("one dispatched", counters(2, dispatched=1), 2, "DISPATCHING"),
    ("one dispatched, fewer than expected", counters(2, dispatched=1), 3, "DISPATCHING"),
    ("one cancelled, one waits", counters(2, settled=1), 2, "DISPATCHING"),
    ("one failed, one waits", counters(2, dispatch_failed=1, settled=1), None, "DISPATCHING"),
    # 4. fewer than expected
    ("fewer registered than expected", counters(2), 3, "RESOLVING"),
    # 5.
    ("as many as expected", counters(3), 3, "RESOLVED"),
    ("more registered than expected", counters(4), 3, "RESOLVED"),
    ("registered, nothing announced", counters(1), None, "RESOLVED"),
    ("registered, none expected", counters(1), 0, "RESOLVED"),
]


@pytest.mark.parametrize(
    ("counts", "expected", "state"),
    [case[1:] for case in OPERATION_STATES],
    ids=[case[0] for case in OPERATION_STATES],
)
def test_an_operations_state_is_the_first_rule_that_matches(
    counts: Counters, expected: int | None, state: str
) -> None:
    assert operation_state(counts, expected).value == state


def test_an_operation_reopens_when_devices_are_added() -> None:
    succeeded = counters(1, dispatched=1, success=1, settled=1)
    assert operation_state(succeeded, 1).value == "COMPLETED"
    assert operation_state(succeeded.plus(contribution(State.CREATED, False)), 1).value == "DISPATCHING"
    assert operation_state(succeeded, 2).value == "DISPATCHING"


@pytest.mark.parametrize("expected", [None, 0, 1, 2, 3])
def test_an_operations_state_agrees_with_the_model_for_every_pair_of_devices(expected: int | None) -> None:
    devices = list(product(rules.STATES, (False, True)))
    for pair in [[], *([device] for device in devices), *map(list, product(devices, devices))]:
        counts = Counters()
        for state, dispatched in pair:
            counts = counts.plus(contribution(State[state], dispatched))
        assert operation_state(counts, expected).value == rules.operation_state_of(pair, expected), pair


def test_the_diagram_shows_each_direct_step_and_no_others() -> None:
    lines = [line.strip() for line in mermaid().splitlines()]
    assert lines[0] == "stateDiagram-v2"
    drawn = [tuple(line.split(" --> ")) for line in lines if " --> " in line]
    assert sorted(drawn) == sorted([("[*]", "CREATED"), *STEPS])


def test_the_diagram_marks_exactly_the_settled_states() -> None:
    [marked] = [line.split()[1] for line in mermaid().splitlines() if line.split()[0] == "class"]
    assert set(marked.split(",")) == set(rules.SETTLED)
