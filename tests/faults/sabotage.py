"""Places in a worker at which a test can have it die or hang.

In the folder that the variable SABOTAGE names, a file with a place's name strikes the next time that a worker gets
there, once: it says "die", or for how many seconds the worker's event loop hangs, and after how many passes.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from aiormq.channel import Channel
from pamqp.commands import Basic
from sqlalchemy import event
from sqlalchemy.engine import Engine

from worker import batches, messages
from worker.intake import session

BEFORE_COMMIT = "before-commit"
BEFORE_ACKNOWLEDGEMENT = "before-acknowledgement"
DEAF = "deaf"
"""From then on, deliveries to this worker are lost."""
POISON = b"poison"
"""A message that has this kills whoever parses it."""


def prepare() -> None:
    """Have this process obey the tests."""
    folder = Path(os.environ["SABOTAGE"])

    def strike(place: str) -> None:
        order = folder / place
        if order.exists():
            how, passes = order.read_text().split()
            if int(passes) > 0:
                order.write_text(f"{how} {int(passes) - 1}")
                return
            order.unlink()
            if how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(float(how))

    event.listen(Engine, "commit", lambda _: strike(BEFORE_COMMIT))
    acknowledge, parse, deliver = session._Subscription.acknowledge, messages.parse, Channel._on_deliver_frame

    async def acknowledge_or_not(*arguments: Any) -> None:
        strike(BEFORE_ACKNOWLEDGEMENT)
        await acknowledge(*arguments)

    def parse_or_die(message: messages.Message) -> list[messages.Item]:
        if POISON in message.body:
            os.kill(os.getpid(), signal.SIGKILL)
        return parse(message)

    async def deliver_or_not(channel: Channel, frame: Basic.Deliver) -> None:
        if not (folder / DEAF).exists():
            await deliver(channel, frame)

    for owner, name, replacement in (
        (session._Subscription, "acknowledge", acknowledge_or_not),
        (batches, "parse", parse_or_die),
        (Channel, "_on_deliver_frame", deliver_or_not),
    ):
        setattr(owner, name, replacement)
