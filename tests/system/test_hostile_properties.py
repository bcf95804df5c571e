"""What senders write into AMQP properties and headers, at the level of frames, where no client library helps."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
import pytest
from aiormq.channel import Channel
from pydantic import SecretStr

from tests.support.command import Deviceops
from tests.support.frames import NOT_UTF8, RawProperties, entry, nested, short, table
from worker.amqp.connection import connected
from worker.amqp.delivery import Delivery
from worker.amqp.reading import POISON_AFTER, as_abandoned, is_poison_candidate
from worker.amqp.topology import Topology
from worker.config.settings import Settings

HEADERS, MESSAGE_ID, TIMESTAMP, TYPE = 1 << 13, 1 << 7, 1 << 6, 1 << 5
HOSTILE = {
    "a time in microseconds": RawProperties(TIMESTAMP, struct.pack(">Q", 1_700_000_000_000_000)),
    "a time beyond all years": RawProperties(TIMESTAMP, struct.pack(">Q", 2**63)),
    "a message id that is not UTF-8": RawProperties(MESSAGE_ID, short(NOT_UTF8)),
    "a message id of NULs": RawProperties(MESSAGE_ID, short(b"\0" * 255)),
    "a type that is not UTF-8": RawProperties(TYPE, short(NOT_UTF8)),
    "a header's name that is not UTF-8": RawProperties(HEADERS, table(short(NOT_UTF8) + b"V")),
    "a header's time beyond all years": RawProperties(
        HEADERS, table(short(b"t") + b"T" + struct.pack(">Q", 2**63))
    ),
    "headers in headers in headers": RawProperties(HEADERS, nested(600)),
}


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[Channel]:
    async with await aio_pika.connect(amqp_url) as connection:
        own_channel = await connection.channel()
        channel = await own_channel.get_underlay_channel()
        assert isinstance(channel, Channel)
        yield channel


@pytest.mark.parametrize("body_is_readable", [True, False])
async def test_no_property_or_header_breaks_the_connection_or_a_batch_mate(
    deviceops_on_sqlite: Deviceops,
    amqp_url: str,
    topology_prefix: str,
    channel: Channel,
    body_is_readable: bool,
) -> None:
    deviceops = deviceops_on_sqlite.with_settings(amqp_url=amqp_url, topology_prefix=topology_prefix)
    deviceops.out("run", "--until-idle", "0.1")

    def report() -> bytes:
        ids = {"operation_id": str(uuid4()), "device_id": str(uuid4())}
        return json.dumps({**ids, "state": "CREATED", "service_id": "drift-service"}).encode()

    for number, properties in enumerate(HOSTILE.values()):
        body = report() if body_is_readable else b"unreadable %d" % number
        await channel.basic_publish(body, exchange=topology_prefix, routing_key="r", properties=properties)
        await channel.basic_publish(report(), exchange=topology_prefix, routing_key="r")

    summary = deviceops.document("run", "--until-idle", "1")

    readable_types = len(HOSTILE) - 1
    applied = len(HOSTILE) + (readable_types if body_is_readable else 0)
    malformed = 1 if body_is_readable else len(HOSTILE)
    assert summary["received"] == 2 * len(HOSTILE)
    assert summary["applied"] == applied
    assert summary["dead_lettered"] == {"malformed": malformed}
    for letter in deviceops.document("dead-letters", "list"):
        assert deviceops.out("dead-letters", "show", str(letter["id"]))
    queues = [f"{topology_prefix}.reports", f"{topology_prefix}.dead-letters"]
    declared = [await channel.queue_declare(queue, passive=True) for queue in queues]
    assert [found.message_count for found in declared] == [0, 0]


IN_NANOSECONDS = struct.pack(">Q", 1_700_000_000_000_000_000)


async def test_a_message_whose_workers_die_is_isolated_whatever_else_is_in_its_headers(
    amqp_url: str, topology_prefix: str, channel: Channel
) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        await Topology(topology_prefix).declare(await connection.channel())
    properties = RawProperties(HEADERS, table(entry(b"bad", b"T", IN_NANOSECONDS), entry(NOT_UTF8, b"V", b"")))
    await channel.basic_publish(b"{}", exchange=topology_prefix, routing_key="r", properties=properties)
    queue = f"{topology_prefix}.reports"
    for _ in range(POISON_AFTER):
        found = await channel.basic_get(queue)
        assert found.delivery_tag is not None
        await channel.basic_nack(found.delivery_tag, requeue=True)
    arrived: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
    settings = Settings(amqp_url=SecretStr(amqp_url), topology_prefix=topology_prefix)

    async with connected(settings) as connection:
        own = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        assert isinstance(own, Channel)
        connection.frames.route_deliveries(own.number, arrived.set_result)
        await own.basic_consume(queue, lambda _: asyncio.sleep(0))
        delivery = await asyncio.wait_for(arrived, 30)

    assert is_poison_candidate(delivery)
    assert as_abandoned(delivery, datetime.now(UTC)).redeliveries == POISON_AFTER
