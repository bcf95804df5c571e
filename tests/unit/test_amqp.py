"""Which errors of the client mean that the broker is lost."""

import asyncio

import pytest

from worker.amqp.connection import BrokerLost
from worker.amqp.session import broker_errors_as_lost


@pytest.mark.parametrize("error", [Exception(), asyncio.CancelledError(), ConnectionError("cut"), TimeoutError()])
async def test_however_the_client_ends_what_waits_on_a_lost_connection_the_broker_is_lost(
    error: BaseException,
) -> None:
    with pytest.raises(BrokerLost), broker_errors_as_lost():
        raise error


async def test_a_task_that_is_cancelled_has_not_lost_the_broker_and_neither_has_a_defect() -> None:
    async def wait() -> None:
        with broker_errors_as_lost():
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(KeyError), broker_errors_as_lost():
        raise KeyError
