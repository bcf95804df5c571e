"""Private clusters of three RabbitMQs, this machine's or RabbitMQ 4.0, in networks of their own."""

import asyncio
import json
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import repeat
from pathlib import Path
from subprocess import CalledProcessError
from typing import ClassVar, Self

import aio_pika
from pamqp.common import FieldTable

from tests.support.services.broker import PrivateRabbitMQ, RabbitMQ4
from tests.support.services.network import Network, Place
from tests.support.services.server import PrivateServer, ServiceError

NET_TICKTIME = 8
"""Seconds after which nodes take one that is silent for gone, give or take a quarter; Erlang's default is 60."""
WHOLE_SECONDS = 120
"""In which nodes that have started must have found each other."""
MEND_SECONDS = 20
"""In which they do so by themselves when a fault is over, or not at all."""
SPARE_SECONDS = 60
"""In which quorum queues must be able to do without a node, once all serve."""
NAMES = ("a", "b", "c")


class ClusterNode(PrivateRabbitMQ):
    """A RabbitMQ in a place of a network, which joins those in the others when it starts without data."""

    def __init__(self, place: Place, peers: Sequence[Place], cookie: str) -> None:
        self.place = place
        super().__init__()
        self._host, self._port = place.address, 5672
        self.url = f"amqp://guest:guest@{self._host}:{self._port}/"
        self.name = _name(place)
        """By which its peers and rabbitmqctl know it."""
        self.keep(".erlang.cookie", cookie.encode())
        lines = [
            "loopback_users = none",
            "cluster_partition_handling = pause_minority",
            "cluster_formation.peer_discovery_backend = classic_config",
            *(f"cluster_formation.classic_config.nodes.{n} = {_name(peer)}" for n, peer in enumerate(peers, 1)),
            "",
        ]
        self.keep("rabbitmq.conf", "\n".join(lines).encode())
        del self._environment["ERL_EPMD_ADDRESS"]
        self._environment |= {
            # The usual ports, for the namespace has all to itself.
            "ERL_EPMD_PORT": "4369",
            "RABBITMQ_DIST_PORT": "25672",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": self._host,
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel net_ticktime {NET_TICKTIME}",
            "RABBITMQ_USE_LONGNAME": "true",
        }

    def control(self, *arguments: str, typed: str = "") -> str:
        """What rabbitmqctl prints."""
        return super().control("--longnames", "--silent", *arguments, typed=typed)

    def queues(self, *arguments: str) -> str:
        """What rabbitmq-queues prints. Raises CalledProcessError if it fails."""
        program = self._program.with_name("rabbitmq-queues")
        return self._run(program, "--node", self.name, "--longnames", "--silent", *arguments)

    def sees(self, nodes: Iterable["ClusterNode"]) -> bool:
        """Whether it serves, and these nodes as one cluster with it."""
        try:
            found = json.loads(self.control("cluster_status", "--formatter", "json"))
        except CalledProcessError:  # it has paused, or is not far enough yet
            return False
        return {node.name for node in nodes} == {*found["running_nodes"]} and not found["partitions"]

    def forget(self) -> None:
        """Delete its data, once it has ended."""
        shutil.rmtree(self._directory / "data")

    def _command(self, *command: str | Path) -> list[str]:
        return self.place.namespace.entered_by(*super()._command(*command))


class ClusterNode4(ClusterNode, RabbitMQ4):
    """A RabbitMQ 4.0, as the others."""


class RabbitMQCluster:
    """Three RabbitMQs: `with` starts them, and at the end leaves no process, no network and no file of them.

    A node that sees no other one stops serving until it does (`pause_minority`). The others take a silent one for
    gone after NET_TICKTIME.
    """

    kind: ClassVar[type[ClusterNode]] = ClusterNode

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.nodes: list[ClusterNode] = []

    @property
    def url(self) -> str:
        """The URL that names all nodes."""
        hosts = ",".join(node.url.removeprefix("amqp://guest:guest@").rstrip("/") for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/"

    def start(self) -> None:
        """Start those that do not run, at the same time, and wait until all three see each other."""
        self._start()
        if not self.is_whole(WHOLE_SECONDS):
            raise ServiceError(f"The nodes of a cluster do not find each other in {WHOLE_SECONDS} s.")

    def mend(self, suspect: ClusterNode | None = None) -> None:
        """Start what does not run, and have all nodes see each other, as whoever runs them would.

        RabbitMQ does not always do the latter by itself: a node that stood still for longer than NET_TICKTIME may
        have the others again before it has come to think of pausing, and they stay strangers until a restart.
        """
        self._start()
        for node in (suspect or self.nodes[0], *self.nodes):
            if self.is_whole(MEND_SECONDS):
                return
            node.stop()
            node.start()
        self.start()

    def is_whole(self, seconds: float) -> bool:
        """Whether all nodes serve and none takes another for a stranger, within so many seconds."""
        deadline = time.monotonic() + seconds
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            while not all(threads.map(self.kind.sees, self.nodes, repeat(self.nodes))):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.5)
        return True

    def _start(self) -> None:
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(self.kind.start, [node for node in self.nodes if not node.is_running]))

    def others(self, node: ClusterNode) -> list[ClusterNode]:
        """All nodes but one."""
        return [each for each in self.nodes if each is not node]

    def leader(self, queue: str, asked: ClusterNode | None = None) -> ClusterNode:
        """The node that leads a quorum queue, as one of them says."""
        rows = json.loads((asked or self.nodes[0]).control("list_queues", "name", "leader", "--formatter", "json"))
        name = next(row["leader"] for row in rows if row["name"] == queue)
        return next(node for node in self.nodes if node.name == name)

    def lead(self, queue: str, node: ClusterNode) -> None:
        """Have a node lead a quorum queue."""
        while self.leader(queue) is not node:
            node.control(
                "eval",
                f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
                f"rabbit_quorum_queue:transfer_leadership(Q, '{node.name}').",
            )

    def await_spare(self, node: ClusterNode) -> None:
        """Return once every quorum queue can do without a node. Raises CalledProcessError after a minute."""
        deadline = time.monotonic() + SPARE_SECONDS
        while True:
            try:
                node.queues("check_if_node_is_quorum_critical")
            except CalledProcessError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def wipe(self, node: ClusterNode) -> None:
        """Kill a node, have the others forget it, and start it as an empty one that joins them.

        What is left to do then is to give it a part of each quorum queue again: see `grow`.
        """
        node.kill()
        other = self.others(node)[0]
        other.queues("shrink", node.name)
        other.control("forget_cluster_node", node.name)
        node.forget()
        node.start()
        self.start()

    def grow(self, node: ClusterNode) -> None:
        """Have a node take part in every quorum queue that it has no part of."""
        self.others(node)[0].queues("grow", node.name, "all")

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as PrivateServer
        with ExitStack() as stack:
            places = stack.enter_context(Network(*NAMES)).places
            cookie = secrets.token_hex(10)
            for place in places:
                node = self.kind(place, places, cookie)
                stack.callback(PrivateServer.__exit__, node)
                self.nodes.append(node)
            stack.callback(self._kill)
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _kill(self) -> None:
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(self.kind.kill, self.nodes))  # nobody needs what they would write in order


class RabbitMQ4Cluster(RabbitMQCluster):
    """Three RabbitMQs 4.0."""

    kind = ClusterNode4


def _name(place: Place) -> str:
    return f"rabbit@{place.peer_address}"


async def declare(node: ClusterNode, queue: str) -> None:
    """Declare a quorum queue that the node leads."""
    async with asyncio.timeout(30), await aio_pika.connect(node.url) as connection:
        arguments: FieldTable = {"x-queue-type": "quorum", "x-queue-leader-locator": "client-local"}
        await (await connection.channel()).declare_queue(queue, durable=True, arguments=arguments)


async def serve(nodes: Sequence[ClusterNode], queue: str, seconds: float = 60) -> None:
    """Return once one of the nodes has confirmed a message to a queue. Raises ServiceError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for node in nodes:
            with suppress(Exception):  # whatever the client makes of it: it is not confirmed
                async with asyncio.timeout(3), await aio_pika.connect(node.url) as connection:
                    channel = await connection.channel(on_return_raises=True)
                    await channel.default_exchange.publish(aio_pika.Message(b"", delivery_mode=2), queue)
                    return
        await asyncio.sleep(0.1)
    raise ServiceError(f"{queue} takes no message after {seconds:g} s.")
