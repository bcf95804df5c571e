"""A message that kills whoever reads it is given up by the broker in the end, and takes nobody along."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from sqlalchemy import make_url, select

from tests.faults.fleet import Fleet
from tests.faults.ledger import PATIENCE
from tests.faults.sabotage import POISON
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from worker.amqp.reading import POISON_AFTER
from worker.amqp.topology import DELIVERY_LIMIT
from worker.model.dead_letter import DEADLY
from worker.model.outcomes import Reason
from worker.store.database import Database
from worker.store.tables import dead_letters

MESSAGES = 2
"""That kill."""
INNOCENT = 60
"""Devices whose five reports each wait behind them."""
LIVES = 1 + DELIVERY_LIMIT + DEADLY
"""That it takes until nobody delivers or reads the messages any more: they are delivered, and count, together.

A few more, where they are given up, or collected, one after the other.
"""


def poisonous(random: Random) -> Fleet:
    """Reports that kill."""
    fleet = Fleet(random, devices=1)
    deadly = [(id_, body.replace(b"drift-service", POISON)) for id_, body in fleet.reports.items()]
    fleet.reports = dict(deadly[:MESSAGES])
    return fleet


async def undeliverable(database: Database) -> Sequence[Any]:
    """The dead letters that the broker gave up on: who they are, and the operation that they were read to name."""
    columns = select(dead_letters.c.message_id, dead_letters.c.operation_id)
    async with database.read() as connection:
        return (await connection.execute(columns.where(dead_letters.c.reason == Reason.UNDELIVERABLE))).all()


@pytest.mark.alone  # its bounds of time are of a machine that does nothing else
async def test_poison_is_given_up_alone(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database)
    database = Database(make_url(sturdy_database))
    given_up: set[str] = set()

    async def poison(random: Random) -> None:
        assert await worker.stop() == 0
        before = len(worker.deaths)
        poison, innocent, latecomers = poisonous(random), Fleet(random, INNOCENT), Fleet(random)
        await ledger.publish(poison, is_to_arrive=False)
        await ledger.publish(innocent)
        given_up.update(poison.reports)
        worker.start()
        await worker.has_died(before + POISON_AFTER + 1)
        await ledger.publish(latecomers, seconds=2)  # their acknowledgements must leave the suspects alone
        await ledger.caught_up()
        assert len(worker.deaths) - before < DELIVERY_LIMIT / 2, "lives until the innocent are done"
        async with asyncio.timeout(PATIENCE):
            while len(await undeliverable(database)) < len(given_up):  # noqa: ASYNC110  # no event says so
                await asyncio.sleep(0.1)
        assert LIVES <= len(worker.deaths) - before <= LIVES + MESSAGES, "lives until they are given up"
        for fleet in (innocent, latecomers):
            found = await ledger.compare(fleet)
            assert (found.missing, found.doubled, found.wrong) == (0, 0, "")

    try:
        await trials.endure(f"{MESSAGES} messages kill whoever reads them", poison, ledger, worker)
        letters = await undeliverable(database)
    finally:
        await database.close()
    assert sorted(letter.message_id for letter in letters) == sorted(given_up)
    assert all(letter.operation_id is None for letter in letters), "nobody has read them"
