"""Publishes many messages at a time, in their order, and waits until the broker has confirmed them.

The client publishes one message a call, which takes five times as long: a lock, several turns of the event loop
and a write to the network for each.
"""

import asyncio
from collections.abc import Sequence

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

Outgoing = tuple[Basic.Publish, Basic.Properties, bytes]
"""A message: where it is published, its properties and body."""


async def publish_confirmed(channel: Channel, messages: Sequence[Outgoing]) -> Sequence[object]:
    """The broker's answer to each message: its acknowledgement, or the error. Raises the client's errors.

    Nothing else may be published on the channel meanwhile, as the order of the frames is that of the numbers by
    which the broker confirms.
    """
    frames: list[Frame | ContentHeader | ContentBody] = []
    confirmations: list[asyncio.Future[object]] = []
    size = channel.max_content_size
    for publish, properties, body in messages:
        frames += publish, ContentHeader(properties=properties, body_size=len(body))
        frames += (ContentBody(body[start : start + size]) for start in range(0, len(body), size))
        channel.delivery_tag += 1
        confirmation = channel.create_future()
        channel.confirmations[channel.delivery_tag] = confirmation
        confirmations.append(confirmation)
    await channel.write_queue.put(ChannelFrame.marshall(channel_number=channel.number, frames=frames))
    return await asyncio.gather(*confirmations, return_exceptions=True)
