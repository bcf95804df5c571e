"""Reports that arrive again and again have one effect."""

import re
from random import Random

from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.faults.workers import Worker

COPIES = 100
DEVICES = 8
REPORTS = 5
"""Of each device."""


def received(worker: Worker) -> int:
    """How many reports a worker has committed, copies and all."""
    found = re.search(r"^deviceops_received_total (\S+)$", worker.probe("metrics")[1], re.MULTILINE)
    return int(float(found[1])) if found else 0


async def test_every_report_a_hundred_times_through_two_workers(
    trials: Trials, new_scene: NewScene, amqp_url: str, database_url: str
) -> None:
    worker, ledger = await new_scene(amqp_url, database_url, batch_size=50)
    twin = worker.twin()
    twin.start()
    await twin.is_ready()
    ledger.copies = COPIES
    sent = 0

    async def have_all_of_them(_: Random) -> None:
        nonlocal sent
        sent += DEVICES * REPORTS * COPIES
        await worker.until(lambda: received(worker) + received(twin) == sent, "done with all copies")

    name = f"every report {COPIES} times, two workers"
    await trials.endure(name, have_all_of_them, ledger, worker, twin, devices=DEVICES)
    for each in (worker, twin):
        assert '"level": "error"' not in each.log
        assert each.deaths == [0]
