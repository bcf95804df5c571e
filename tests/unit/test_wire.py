"""Deliveries are read from the bytes of a connection, however those are cut; the client gets the rest."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import FrameTypes, marshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from worker.amqp.delivery import Delivery
from worker.amqp.frames import _Reader

shorts = st.sampled_from([None, "text", "ä" * 127])
CONSUMING, OTHER = 2, 3
"""Channels: one has a sink, the other has none."""


def message(tag: int, body: bytes, parts: int, channel: int = CONSUMING) -> list[bytes]:
    """The frames of a delivery whose body comes in about so many parts."""
    step = max(len(body) // parts, 1)
    frames: list[FrameTypes] = [
        Basic.Deliver("consumer", tag, False, "exchange", "key"),
        ContentHeader(body_size=len(body), properties=Basic.Properties(message_id=f"message-{tag}")),
        *(ContentBody(body[at : at + step]) for at in range(0, len(body), step)),
    ]
    return [marshal(frame, channel) for frame in frames]


def read(data: bytes, cuts: Iterable[int] = ()) -> tuple[list[Delivery], bytes]:
    """What comes of bytes that arrive cut at these places: the deliveries, and what is left to the client."""

    async def feed() -> bytes:
        reader = _Reader(loop=asyncio.get_running_loop())
        reader.sinks[CONSUMING] = deliveries.append
        for start, end in pairwise([0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]):
            reader.feed_data(data[start:end])
        for _ in range(2):  # as asyncio does it: when the other side ends, and when the connection is gone
            reader.feed_eof()
        return await reader.read()

    deliveries: list[Delivery] = []
    return deliveries, asyncio.run(feed()).removeprefix(Heartbeat.marshal())


def merged(streams: Sequence[list[bytes]], order: Sequence[int]) -> list[bytes]:
    """Frames of several channels, mixed as the broker may mix them: each channel's in their order."""
    left = [list(stream) for stream in streams]
    turns = [index for index in order if index < len(left)]
    mixed = [left[index].pop(0) for index in turns if left[index]]
    return mixed + [frame for stream in left for frame in stream]


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 4)), max_size=6),
    st.lists(st.binary(min_size=1, max_size=30), max_size=3),
    st.lists(st.integers(0, 1), max_size=40),
    st.lists(st.integers(0, 3_000), max_size=30),
)
def test_deliveries_arrive_whole_and_the_client_gets_the_rest(
    bodies: list[tuple[bytes, int]], others: list[bytes], order: list[int], cuts: list[int]
) -> None:
    own = [frame for tag, (body, parts) in enumerate(bodies) for frame in message(tag, body, parts)]
    rest = [frame for tag, body in enumerate(others) for frame in message(tag, body, 1, OTHER)]

    deliveries, left = read(b"".join(merged([own, rest], order)), cuts)

    assert [(delivery.tag, delivery.body) for delivery in deliveries] == [
        (tag, body) for tag, (body, _) in enumerate(bodies)
    ]
    assert left == b"".join(rest)
    assert all(delivery.deliver.routing_key == "key" for delivery in deliveries)


@given(
    st.sampled_from([b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00\x00\x00\x00\x01a\x00", b"HTTP/1.1 400"]), st.binary()
)
def test_what_is_no_frame_is_left_to_the_client_with_all_that_follows(odd: bytes, more: bytes) -> None:
    before = b"".join(message(1, b"body", 1))

    deliveries, left = read(before + odd + more, [len(before) + 3, len(before) + 9])

    assert [delivery.tag for delivery in deliveries] == [1]
    assert left == odd + more


def test_a_frame_that_was_cut_off_is_left_to_the_client_when_the_connection_ends() -> None:
    deliveries, left = read(b"".join(message(1, b"body", 1))[:-1])

    assert not deliveries
    assert left == message(1, b"body", 1)[-1][:-1]


async def test_the_client_hears_that_the_broker_lives_while_there_is_nothing_but_deliveries() -> None:
    reader = _Reader(loop=asyncio.get_running_loop())
    reader.sinks[CONSUMING] = lambda _: None
    reader._fed_at = asyncio.get_running_loop().time()
    frames = b"".join(message(1, b"body", 1))

    reader.feed_data(frames)
    early = bytes(reader._buffer)  # type: ignore[attr-defined]
    reader._fed_at -= 2
    reader.feed_data(frames)
    reader.feed_data(frames)

    assert early == b""
    assert await reader.read(100) == Heartbeat.marshal()


@given(
    st.builds(
        Basic.Properties,
        content_type=shorts,
        content_encoding=shorts,
        headers=st.none() | st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 9) | shorts, max_size=2),
        delivery_mode=st.sampled_from([None, 1, 2]),
        priority=st.sampled_from([None, 0, 9]),
        correlation_id=shorts,
        reply_to=shorts,
        expiration=st.sampled_from([None, "1000"]),
        message_id=shorts,
        timestamp=st.none() | st.integers(0, 2**33).map(partial(datetime.fromtimestamp, tz=UTC)),
        message_type=shorts,
        user_id=shorts,
        app_id=shorts,
    )
)
def test_the_essentials_are_those_of_all_properties(properties: Basic.Properties) -> None:
    delivery = Delivery(b"", ContentHeader(properties=properties).marshal(), b"")
    all_of_them = delivery.properties

    assert delivery.essentials() == (
        all_of_them.message_id,
        all_of_them.message_type,
        all_of_them.timestamp,
        all_of_them.headers,
        not properties.content_encoding,
    )


def test_a_timestamp_of_0_is_none() -> None:
    for seconds, sent_at in {0: None, 1: datetime.fromtimestamp(1, UTC)}.items():
        properties = Basic.Properties(timestamp=datetime.fromtimestamp(seconds, UTC), app_id="a")
        delivery = Delivery(b"", ContentHeader(properties=properties).marshal(), b"")

        assert delivery.essentials()[2] == delivery.properties.timestamp == sent_at
        assert delivery.properties.app_id == "a"
