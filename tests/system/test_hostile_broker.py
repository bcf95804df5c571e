"""Arbitrary bytes, properties and headers through a real broker: nothing is lost, nothing crashes."""

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aio_pika.abc import AbstractChannel
from aiormq.channel import Channel
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.brokering import messages_in
from tests.support.databases import clear
from tests.support.frames import RawProperties, short, table
from tests.support.odd_values import bodies
from tests.support.sending import (
    ANNOUNCEMENT,
    REPORT,
    assert_counters_are_a_recount,
    assert_everything_is_accounted_for,
)
from worker.amqp.consumer import Consumer
from worker.amqp.topology import Topology
from worker.config.settings import Settings
from worker.model.messages import REPLAY_OF, Message
from worker.model.outcomes import Tally
from worker.processing.batches import process_messages
from worker.store.database import Database

shorts = st.binary(max_size=255)
integers = st.integers(0, 2**64 - 1)


def _packed(kind: bytes, layout: str) -> Callable[[int], bytes]:
    mask = 2 ** (8 * struct.calcsize(f">{layout}")) - 1
    return lambda number: kind + struct.pack(f">{layout}", number & mask)


def _long(kind: bytes) -> Callable[[bytes], bytes]:
    return lambda value: kind + struct.pack(">I", len(value)) + value


# Field values in the encoding of AMQP 0-9-1 with RabbitMQ's types, but for NaN, which RabbitMQ itself refuses.
scalars = st.one_of(
    st.just(b"V"),
    st.booleans().map(lambda flag: b"t" + bytes([flag])),
    *(
        integers.map(_packed(kind, layout))
        for kind, layout in [(b"b", "B"), (b"s", "H"), (b"I", "I"), (b"l", "Q"), (b"T", "Q")]
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: b"d" + struct.pack(">d", number)),
    st.tuples(st.integers(0, 255), st.integers(0, 2**31 - 1)).map(lambda pair: b"D" + struct.pack(">Bi", *pair)),
    *(st.binary(max_size=80).map(_long(kind)) for kind in (b"S", b"x")),
)
names = st.one_of(
    st.binary(min_size=1, max_size=20).filter(lambda name: name not in (b"CC", b"BCC")),  # those route
    st.sampled_from([b"x-death", b"x-delivery-count", REPLAY_OF.encode(), b"x-deviceops-replays"]),
)


def _table(entries: dict[bytes, bytes]) -> bytes:
    return table(*(short(name) + value for name, value in entries.items()))


values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.dictionaries(names, inner, max_size=3).map(lambda entries: b"F" + _table(entries)),
        st.lists(inner, max_size=3).map(b"".join).map(_long(b"A")),
    ),
    max_leaves=6,
)
tables = st.dictionaries(names, values, max_size=4).map(_table)
# Each property with the bit of its flag; not expiration and user_id, which the broker itself judges.
PROPERTIES = {
    15: shorts.map(short),  # content_type
    14: shorts.map(short),  # content_encoding
    13: tables,  # headers
    12: st.sampled_from([b"\x01", b"\x02"]),  # delivery_mode
    11: st.binary(min_size=1, max_size=1),  # priority
    10: shorts.map(short),  # correlation_id
    9: shorts.map(short),  # reply_to
    7: shorts.map(short),  # message_id
    6: integers.map(lambda number: struct.pack(">Q", number)),  # timestamp
    5: st.sampled_from([REPORT.encode(), ANNOUNCEMENT.encode(), b"\xff", b"other"]).map(short),  # type
    3: shorts.map(short),  # app_id
}


class Sent(NamedTuple):
    """A message as it goes over the wire, to one of the two exchanges."""

    body: bytes
    properties: RawProperties
    to_dead_letters: bool


@st.composite
def messages(draw: st.DrawFn) -> Sent:
    bits = sorted(draw(st.sets(st.sampled_from(sorted(PROPERTIES)))), reverse=True)
    encoded = b"".join(draw(PROPERTIES[bit]) for bit in bits)
    return Sent(draw(bodies), RawProperties(sum(1 << bit for bit in bits), encoded), draw(st.booleans()))


@given(sent=st.lists(messages(), min_size=1, max_size=30))
@settings(max_examples=25)
async def test_whatever_is_sent_through_the_broker_is_taken_or_kept(
    sqlite_database: Database, amqp_url: str, topology_prefix: str, channel: AbstractChannel, sent: list[Sent]
) -> None:
    await clear(sqlite_database)
    topology = Topology(topology_prefix)
    await topology.declare(channel)
    raw = await channel.get_underlay_channel()
    assert isinstance(raw, Channel)
    for body, properties, to_dead_letters in sent:
        exchange = topology.dead_letters if to_dead_letters else topology.exchange
        await raw.basic_publish(body, exchange=exchange, routing_key="r", properties=properties)
    tally, deliveries = Tally(), 0

    async def process(batch: Sequence[Message]) -> None:
        nonlocal deliveries
        deliveries += len(batch)
        tally.add(await process_messages(sqlite_database, batch))

    await Consumer(Settings(amqp_url=amqp_url, topology_prefix=topology_prefix), process, asyncio.Event()).run(0.2)

    assert deliveries == len(sent), "nothing came twice, so nothing broke on the way"
    assert tally.received == len(sent)
    assert_everything_is_accounted_for(tally)
    await assert_counters_are_a_recount(sqlite_database)
    assert [await messages_in(channel, queue) for queue in (topology.reports, topology.dead_letters)] == [0, 0]
