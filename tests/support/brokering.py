"""What tests through a real RabbitMQ do: send, count, wait."""

import json
import random
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange

from tests.support.command import Deviceops
from worker.amqp.topology import Topology

PATIENCE = 30
"""Seconds that something may take that should take much less."""

NODE_TIMEOUT = 2
"""Seconds in which a node of a cluster must answer, before another one is tried."""


def report(state: str = "CREATED", device: str | None = None, operation: str | None = None) -> dict[str, Any]:
    return {
        "operation_id": operation or str(uuid4()),
        "device_id": device or str(uuid4()),
        "state": state,
        "service_id": "drift-service",
    }


def nodes_of(amqp_url: str) -> Sequence[str]:
    """The URL of each node that a broker's URL names."""
    found = re.fullmatch(r"(\w+://(?:[^@/]*@)?)([^/?]*)(.*)", amqp_url)
    assert found is not None
    before, hosts, after = found.groups()
    return [f"{before}{host}{after}" for host in hosts.split(",")]


async def connect(amqp_url: str, *, seconds: float = 30) -> AbstractConnection:
    """A connection to a broker, or to one node of a cluster's, which are tried in an order drawn by lot."""
    nodes = nodes_of(amqp_url)
    first, *others = random.sample(nodes, len(nodes))
    for url in others:
        with suppress(Exception):  # whatever the client makes of it: there are more
            return await aio_pika.connect(url, timeout=NODE_TIMEOUT)
    return await aio_pika.connect(first, timeout=seconds)


def eventually(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + patience
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
    return result


def until_logged(worker: subprocess.Popen[str], words: str) -> str:
    """The next line of a worker's log that has these words."""
    assert worker.stderr is not None
    for line in worker.stderr:
        if words in line:
            return line
    raise AssertionError(f"the worker ended with {worker.wait()} and did not say {words!r}")


async def messages_in(channel: AbstractChannel, queue: str) -> int:
    found = await channel.declare_queue(queue, passive=True)
    return found.declaration_result.message_count or 0


async def send(exchange: AbstractExchange, *bodies: object, **properties: Any) -> None:
    for body in bodies:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await exchange.publish(aio_pika.Message(data, delivery_mode=2, **properties), "any.key")


async def declared(deviceops: Deviceops, channel: AbstractChannel) -> AbstractExchange:
    """The exchange, with all that a worker declares, and without starting one."""
    return await Topology(deviceops.settings["topology_prefix"]).declare(channel)


async def delete_topology(amqp_url: str, prefix: str) -> None:
    """Delete what the worker declared."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        for queue in (f"{prefix}.reports", f"{prefix}.dead-letters"):
            await channel.queue_delete(queue)
        for exchange in (prefix, f"{prefix}.dead-letters", f"{prefix}.changes"):
            await channel.exchange_delete(exchange)
