"""Timeouts and thresholds act once, whatever fails meanwhile."""

import asyncio
import json
from random import Random

from statemachine import State
from tests.faults.outages import is_paused
from tests.faults.scene import NewScene
from tests.faults.silence import NewSilence
from tests.faults.trials import Trials
from tests.faults.workers import killed
from tests.support.sending import report_body
from tests.support.services import PrivatePostgreSQL
from worker.model.identity import device_operation_id
from worker.model.watermark import GONE_AFTER

HOUR = 3_600


async def test_three_workers_killed_while_many_fall_due(
    trials: Trials,
    new_scene: NewScene,
    new_silence: NewSilence,
    amqp_url: str,
    database_url: str,
    is_large: bool,
) -> None:
    devices = 20_000 if is_large else 2_000
    worker, ledger = await new_scene(amqp_url, database_url, timeout_grace=0)
    workers = await worker.with_twins()
    there = await new_silence(amqp_url, database_url, worker)

    async def fall_silent(random: Random) -> None:
        operations = await there.announce(devices, timeouts={"total": 0.5})
        await killed(workers, random, 2)  # while nothing counts as processed that dead workers may have held
        await asyncio.sleep(GONE_AFTER / 1_000 - 1)
        await killed(workers, random, 4)
        for operation, targets in operations.items():
            await there.has(operation, len(targets), State.TIMEOUT)
            acted = [id_ for id_, _ in await there.acted(operation)]
            assert sorted(acted) == sorted(device_operation_id(operation, each) for each in targets)
        await there.is_counted()

    name = f"three workers killed while {devices:,} device operations fall due"
    await trials.endure(name, fall_silent, ledger, *workers)


async def test_a_threshold_is_crossed_under_kills_and_repeated_deliveries(
    trials: Trials,
    new_scene: NewScene,
    new_silence: NewSilence,
    amqp_url: str,
    database_url: str,
    is_large: bool,
) -> None:
    """It trips once, and everything that has not failed becomes CANCELLED, whichever workers are killed."""
    devices = 20_000 if is_large else 4_000
    worker, ledger = await new_scene(amqp_url, database_url, timeout_grace=0, batch_size=20)
    workers = await worker.with_twins()
    there = await new_silence(amqp_url, database_url, worker)

    async def fail(random: Random) -> None:
        operation, targets = there.new_id(), [there.new_id() for _ in range(devices)]
        abort = {"failed_percent": 50, "min_settled": 100, "action": "cancel"}
        await there.announce_again(operation, targets, abort=abort)
        await there.has(operation, devices)
        failing = random.sample(targets, 300)
        bodies = [report_body(operation, device, "FAILURE", report_id=str(device)) for device in failing] * 3
        random.shuffle(bodies)
        numbers = set()
        killing = asyncio.create_task(killed(workers, random, 3))
        await there.publish(bodies)
        while not killing.done() or await there.count(operation, State.FAILURE, State.CANCELLED) != devices:
            numbers.add(await there.tripped(operation))
            await asyncio.sleep(0.05)
        await there.announce(1)  # which comes last
        numbers.add(await there.tripped(operation))
        [(numbers_then, reason)] = [each for each in numbers if each[0] is not None]
        assert numbers_then is not None
        assert json.loads(numbers_then)["settled"] >= 100
        assert reason is not None
        assert reason.startswith("aborted: ")
        cancelled = await there.acted(operation)
        assert len({report_id for _, report_id in cancelled}) == 1
        assert (
            len(cancelled) == len({id_ for id_, _ in cancelled}) == await there.count(operation, State.CANCELLED)
        )
        assert await there.count(operation, State.FAILURE) + len(cancelled) == devices
        await there.is_counted()

    await trials.endure("three workers killed while a threshold is crossed", fail, ledger, *workers)


async def test_timeouts_go_on_after_an_outage_of_the_database(
    trials: Trials,
    new_scene: NewScene,
    new_silence: NewSilence,
    amqp_url: str,
    fragile_database: str,
    postgresql: PrivatePostgreSQL,
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, timeout_grace=1)
    there = await new_silence(amqp_url, fragile_database, worker)

    async def restart(random: Random) -> None:
        [(operation, devices)] = (await there.announce(500, timeouts={"total": 2})).items()
        await asyncio.to_thread(postgresql.stop)
        await is_paused(worker, ledger, random)
        await asyncio.sleep(random.uniform(0, 3))
        await asyncio.to_thread(postgresql.start)
        await worker.is_ready()
        await there.has(operation, 500, State.TIMEOUT)
        assert sorted(await there.timed_out(operation)) == sorted(devices)
        await there.is_counted()

    await trials.endure("PostgreSQL restarted while device operations fall due", restart, ledger, worker)


async def test_other_timeouts_that_are_announced_hold_for_all_that_is_not_settled(
    new_scene: NewScene, new_silence: NewSilence, amqp_url: str, database_url: str
) -> None:
    worker, _ = await new_scene(amqp_url, database_url, timeout_grace=0)
    there = await new_silence(amqp_url, database_url, worker)
    [(operation, devices)] = (await there.announce(300, timeouts={"total": HOUR})).items()
    await there.report(operation, devices[:100], "SUCCESS")
    await there.has(operation, 100, State.SUCCESS)
    await there.announce_again(operation, timeouts={"total": 1})
    await there.has(operation, 200, State.TIMEOUT)
    assert sorted(await there.timed_out(operation)) == sorted(devices[100:])
