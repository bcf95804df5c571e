"""A broker that hangs: it keeps its connections, and does nothing."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import aio_pika
import pytest
from pydantic import SecretStr

from tests.support.services import PrivateRabbitMQ
from tests.support.services.machine import family
from worker.amqp.connection import CLOSE_TIMEOUT, connected
from worker.config.settings import Settings


@contextmanager
def frozen(server: PrivateRabbitMQ) -> Iterator[None]:
    """The server does nothing for the length of a block."""
    members = family(server.pid)
    for pid in members:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in members:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("unsent", [0, 30_000_000], ids=["with nothing to send", "with much to send"])
async def test_leaving_a_broker_that_hangs_takes_seconds(unsent: int) -> None:
    with PrivateRabbitMQ() as server, ExitStack() as until_it_is_left:
        async with connected(Settings(amqp_url=SecretStr(server.url))) as connection:
            channel = await connection.channel()
            until_it_is_left.enter_context(frozen(server))
            message = aio_pika.Message(bytes(unsent))
            publishing = asyncio.ensure_future(channel.default_exchange.publish(message, "q"))
            await asyncio.sleep(0.5)
            started = time.monotonic()
        assert time.monotonic() - started < CLOSE_TIMEOUT + 1
        [outcome] = await asyncio.gather(publishing, return_exceptions=True)
        assert isinstance(outcome, BaseException)
