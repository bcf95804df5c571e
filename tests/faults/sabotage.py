"""Places in a worker at which a test can have it die or hang.

In the folder that the variable SABOTAGE names, a file with a place's name strikes the next time that a worker gets
there, once: it says "die", or for how many seconds the worker's event loop hangs, and after how many passes.
"""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from pamqp.commands import Basic
from sqlalchemy import event
from sqlalchemy.engine import Engine

from worker.amqp.batching import Batcher
from worker.amqp.delivery import Delivery
from worker.amqp.subscription import Subscription
from worker.model import dead_letter, messages, parsing
from worker.processing import batches

BEFORE_COMMIT = "before-commit"
BEFORE_ACKNOWLEDGEMENT = "before-acknowledgement"
DEAF = "deaf"
"""From then on, deliveries to this worker are lost."""
FORGOTTEN = "forgotten"
"""The broker takes this worker for no consumer any more, and it does not hear of that; at an acknowledgement."""
POISON = b"poison"
"""A message that has this kills whoever reads its body."""


def prepare() -> None:
    """Have this process obey the tests."""
    folder = Path(os.environ["SABOTAGE"])

    def strike(place: str) -> None:
        order = folder / place
        if order.exists():
            how, passes = order.read_text().split()
            if int(passes) > 0:
                fewer = folder / f"{place}.fewer"  # renamed, as the process may be killed before it has written
                fewer.write_text(f"{how} {int(passes) - 1}")
                fewer.rename(order)
                return
            order.unlink()
            if how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(float(how))

    event.listen(Engine, "commit", lambda _: strike(BEFORE_COMMIT))
    acknowledge, put = Subscription.acknowledge, Batcher.put
    parse, name = parsing.parse, parsing.named_in

    async def acknowledge_or_not(subscription: Subscription, deliveries: Any) -> None:
        strike(BEFORE_ACKNOWLEDGEMENT)
        await acknowledge(subscription, deliveries)
        if (folder / FORGOTTEN).exists():
            (folder / FORGOTTEN).unlink()
            consumers = dict(subscription.channel.consumers)
            await subscription.channel.rpc(Basic.Cancel(subscription.tag))
            subscription.channel.consumers.update(consumers)

    def die_of(body: bytes) -> None:
        if POISON in body:
            os.kill(os.getpid(), signal.SIGKILL)

    def parse_or_die(message: messages.Message) -> list[messages.Parsed]:
        if message.abandoned is None:  # otherwise nobody reads it
            die_of(message.body)
        return parse(message)

    def name_or_die(message: messages.Message) -> Mapping[str, UUID | str]:
        die_of(message.body)
        return name(message)

    def put_or_not(batcher: Batcher, delivery: Delivery) -> None:
        if not (folder / DEAF).exists():
            put(batcher, delivery)

    for owner, attribute, replacement in (
        (Subscription, "acknowledge", acknowledge_or_not),
        (batches, "parse", parse_or_die),
        (dead_letter, "named_in", name_or_die),
        (Batcher, "put", put_or_not),
    ):
        setattr(owner, attribute, replacement)
