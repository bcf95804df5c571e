"""Compares what a database holds with what the independent model holds."""

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from tests.support.databases import Stored, read
from tests.support.elapsing import elapse
from tests.support.model import LATER_THAN_ALL, Model
from tests.support.streams import START, World, batches, interleaved
from worker.model.outcomes import Tally
from worker.model.parsing import parse
from worker.processing.expiry import Expirer, all_of_them
from worker.processing.splitting import WriteTransactions, process_items
from worker.store.database import Database

STREAMS = 100
"""In each group; they share its batches, so that it takes few transactions."""


async def check_group(
    database: Database, seed: int, *, in_portions: bool = False, passes_time: bool = False
) -> None:
    """Send a group of streams to the product and to the models, and compare what they hold then.

    `in_portions` is whether a batch takes transactions of which the models do not know: then of an operation's
    states only the last one is compared. `passes_time` is whether minutes pass between batches, upon which device
    operations are timed out.
    """
    random = Random(seed)  # noqa: S311 - the same for the same seed
    worlds = [World(random) for _ in range(STREAMS)]
    tally = Tally()
    states: defaultdict[UUID, list[str]] = defaultdict(list)
    for batch in batches(random, interleaved(random, worlds)):
        items = [item for _, sent in batch for item in parse(sent.message)]
        tally.add(await process_items(WriteTransactions(database), items))
        touched = {id(world): world for world, _ in batch}
        for world, sent in batch:
            for event in sent.events:
                world.model.take(event)
        for world in touched.values():
            world.model.end_transaction()
            note_states(world.model, states)
        if passes_time and random.random() < 0.2:
            minutes = random.choice([1, 1, 2, 10])
            await elapse(database, 60 * minutes)
            await Expirer(database, all_of_them, tally.add).act()
            for world in worlds:
                world.model.clock += 60 * minutes
                world.model.cancel()
                note_states(world.model, states)
                world.model.expire()
                world.model.end_transaction()
                note_states(world.model, states)
    await compare(database, worlds, tally, states, f"seed {seed}", in_portions=in_portions)


def note_states(model: Model, states: defaultdict[UUID, list[str]]) -> None:
    """Write down each operation's state if a batch changed it."""
    for operation in model.operations:
        state = model.operation_state(operation)
        if states[operation][-1:] != [state]:
            states[operation].append(state)


async def compare(
    database: Database,
    worlds: list[World],
    tally: Tally,
    states: defaultdict[UUID, list[str]],
    seed: str,
    *,
    in_portions: bool,
) -> None:
    """Compare what the product stored, operation by operation, with what the models hold."""
    stored = await read(database)
    for world in worlds:
        for operation in world.operations:
            expected = held_by_model(world.model, operation, states[operation])
            actual = held_by_product(stored, operation)
            for held in (expected, actual) if in_portions else ():
                held["states"] = list(held.get("states", ()))[-1:]
                held.pop("has tripped", None)
            assert actual == expected, f"{seed}, operation {operation}, after\n{world.story(operation)}"
    operations = {operation for world in worlds for operation in world.operations}
    assert stored.operations.keys() <= operations, seed
    unreadable = sum(letter.report is None for world in worlds for letter in world.model.dead_letters)
    assert sum(n for (reason, *_), n in stored.dead_letters.items() if reason == "malformed") == unreadable, seed
    found, modelled = tally.document(), total([world.model for world in worlds])
    assert found == modelled, f"{seed}: {found}, expected {modelled}"


def held_by_model(model: Model, operation: UUID, states: list[str]) -> dict[str, Any]:
    """What the model holds of an operation, in plain words."""
    letters = Counter(
        f"{letter.reason}, device {letter.report.device}"
        for letter in model.dead_letters
        if letter.report is not None and letter.report.operation == operation
    )
    if operation not in model.operations:
        return {"dead letters": letters}
    return {
        "dead letters": letters,
        "type": model.operations[operation].operation_type,
        "expected": model.operations[operation].expected,
        "state": model.operation_state(operation),
        "states": states,
        "counters": model.counters(operation),
        "has tripped": model.operations[operation].has_tripped,
        "devices": {
            id_: (device.state, device.dispatched, Counter(device.history), device.document())
            for id_, device in model.devices_of(operation).items()
        },
    }


def held_by_product(stored: Stored, operation: UUID) -> dict[str, Any]:
    """The same of the product."""
    letters = Counter(
        {
            f"{reason}, device {device}": n
            for (reason, about, device), n in stored.dead_letters.items()
            if about == operation and reason != "malformed"
        }
    )
    if operation not in stored.operations:
        return {"dead letters": letters}
    found = stored.operations[operation]
    return {
        "dead letters": letters,
        "type": found.operation_type,
        "expected": found.expected,
        "state": found.state,
        "states": found.states,
        "counters": found.counters,
        "has tripped": found.has_tripped,
        "devices": {
            id_: (device.state, device.dispatched, device.history, _as_modelled(device.reached))
            for id_, device in found.devices.items()
        },
    }


def _as_modelled(reached: list[tuple[str, datetime]]) -> list[tuple[str, datetime]]:
    """A history in which what the product did by itself has the model's time."""
    return [(state, LATER_THAN_ALL if at > START + timedelta(days=1) else at) for state, at in reached]


def total(models: list[Model]) -> dict[str, object]:
    """The models' tallies added up."""
    sums: Counter[str] = Counter()
    dead_lettered: Counter[str] = Counter()
    for model in models:
        document = model.tally()
        reasons = document.pop("dead_lettered")
        assert isinstance(reasons, dict)
        dead_lettered.update(reasons)
        for name, n in document.items():
            assert isinstance(n, int)
            sums[name] += n
    return {**sums, "dead_lettered": dict(dead_lettered)}
