"""A cluster of RabbitMQs that loses a node: the worker goes on with another; nothing is lost, nothing doubled."""

import asyncio
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from random import Random

import pytest

from tests.faults.fleet import Fleet
from tests.faults.ledger import Comparison, Ledger
from tests.faults.outages import feeding, said
from tests.faults.scene import NewScene
from tests.faults.trials import Fault, Trials
from tests.faults.workers import Worker
from tests.support.services import RabbitMQCluster
from tests.support.services.cluster import declare, serve

pytestmark = [pytest.mark.each_cluster(full=True), pytest.mark.not_every_day]

RESUMED_WITHIN = 15
"""Seconds after the cluster itself serves again, within which everything must be in the database."""
QUICK = {"stall_timeout": 8}
"""It asks every two seconds whether the broker answers, by default every ten; see worker.amqp.session."""


class Stage:
    """A worker that is told of all nodes of a cluster, its ledger, and the node that a fault is to strike."""

    def __init__(self, cluster: RabbitMQCluster, worker: Worker, ledger: Ledger) -> None:
        self.cluster, self.worker, self.ledger = cluster, worker, ledger
        prefix = worker.settings["topology_prefix"]
        self._reports = f"{prefix}.reports"
        self._names = (f"{prefix}.control-{number}" for number in count())
        self._own = ""
        self._tries = 0
        self.is_of_worker = True
        """Whether the worker is to be connected to the node that is struck."""
        self.node = cluster.nodes[0]
        self.lasting: asyncio.Task[None] | None = None
        """What a fault goes on with when the cluster serves again already."""

    async def endure(self, trials: Trials, name: str, fault: Fault) -> None:
        """Try a fault, which is over when the cluster itself serves again."""
        self._tries = trials.tries
        await self._prepare()
        result = await trials.endure(name, fault, self.ledger, self.worker, at_rest=self._end)
        assert max(result.seconds) < RESUMED_WITHIN, result.seconds
        assert self.worker.deaths == [0]

    def put_for(self, seconds: float, fault: AbstractContextManager[None]) -> None:
        """Put a fault into the world, to be lifted after so many seconds, whatever else happens."""
        stack = ExitStack()
        stack.enter_context(fault)  # now: others_serve() must not find a cluster that is whole

        async def last() -> None:
            with stack:
                await asyncio.sleep(seconds)

        self.lasting = asyncio.create_task(last())

    async def others_serve(self) -> None:
        """Return once the cluster can do without the node."""
        await serve(self.cluster.others(self.node), self._own)

    async def _end(self) -> None:
        """Look at what happens when the node is there again."""
        if self.lasting is not None:
            await self.lasting
            self.lasting = None
            fleet = Fleet(Random(self._own), devices=10)  # noqa: S311  # to be the same each time
            await self.ledger.publish(fleet, seconds=2)
            await self.ledger.caught_up()
            assert await self.ledger.compare(fleet) == Comparison(0, 0, "")
        await asyncio.to_thread(self.cluster.mend, self.node)
        if self._tries:
            await self._prepare()

    async def _prepare(self) -> None:
        """Choose a node, which is to lead the queue of reports, and a queue of our own."""
        self._tries -= 1
        await self.worker.is_ready()
        broker = said(self.worker.log, "consuming")[-1]["broker"]
        of_worker = next(node for node in self.cluster.nodes if node.place.address in broker)
        self.node = of_worker if self.is_of_worker else self.cluster.others(of_worker)[0]
        await asyncio.to_thread(self.cluster.lead, self._reports, self.node)
        self._own = next(self._names)
        await declare(self.node, self._own)


@pytest.fixture
async def stage(new_scene: NewScene, cluster: RabbitMQCluster, sturdy_database: str) -> Stage:
    """A worker that is told of all nodes, and what may happen to them."""
    scene = await new_scene(cluster.url, sturdy_database, amqp_url=f"{cluster.url}?heartbeat=5", **QUICK)
    return Stage(cluster, *scene)


@pytest.mark.parametrize(
    "is_of_worker",
    [
        pytest.param(True, id="with the worker's connection"),
        pytest.param(False, id="and nothing else"),
    ],
)
async def test_the_node_that_leads_the_queue_is_killed(trials: Trials, stage: Stage, is_of_worker: bool) -> None:
    stage.is_of_worker = is_of_worker

    async def kill(_: Random) -> None:
        await asyncio.to_thread(stage.node.kill)
        await stage.others_serve()

    await stage.endure(trials, "node of the broker that leads the queue killed", kill)


async def test_the_node_stands_still(trials: Trials, stage: Stage) -> None:
    async def freeze(random: Random) -> None:
        stage.put_for(random.uniform(20, 30), stage.node.frozen())
        await stage.others_serve()

    await stage.endure(trials, "node of the broker frozen for 20 to 30 s", freeze)


@pytest.mark.parametrize(
    "also_from_clients",
    [
        pytest.param(True, id="from everybody"),
        pytest.param(False, id="from its peers"),
    ],
)
async def test_the_node_is_cut_off(trials: Trials, stage: Stage, also_from_clients: bool) -> None:
    async def cut_off(random: Random) -> None:
        stage.put_for(random.uniform(12, 20), stage.node.place.cut_off(also_from_clients=also_from_clients))
        await stage.others_serve()

    await stage.endure(trials, "node of the broker cut off, a minority", cut_off)


async def test_every_node_is_restarted_in_turn(trials: Trials, stage: Stage) -> None:
    async def restart(random: Random) -> None:
        async with feeding(stage.ledger, random):
            for node in stage.cluster.nodes:
                await asyncio.to_thread(stage.cluster.await_spare, node)
                await asyncio.to_thread(node.stop)
                await asyncio.to_thread(stage.cluster.start)

    await stage.endure(trials, "nodes of the broker restarted in turn", restart)


async def test_a_node_comes_back_empty(trials: Trials, stage: Stage) -> None:
    """It gets its part of the queue again, which then outlives another node."""

    async def wipe(random: Random) -> None:
        cluster, node = stage.cluster, stage.node
        async with feeding(stage.ledger, random):
            await asyncio.to_thread(cluster.wipe, node)
            await asyncio.to_thread(cluster.grow, node)
        stage.node = cluster.others(node)[0]
        await asyncio.to_thread(stage.node.kill)
        await stage.others_serve()

    await stage.endure(trials, "node of the broker comes back empty, another one killed", wipe)
