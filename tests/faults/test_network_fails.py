"""A link to the broker that breaks, hangs or is slow: the worker connects again by itself, and says so once."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random

import httpx
import pytest
import yarl
from pydantic import SecretStr

from tests.faults.fleet import Fleet
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.faults.workers import CONSUMING, LOST, Worker
from tests.support.proxy import Proxy, proxy_to
from worker.amqp.connection import BrokerLost, connected
from worker.config.settings import Settings
from worker.failover import Failures

STALL = 8
"""Seconds without progress after which the worker leaves: it looks at the queues every 2 s, and waits 2 s for an
answer."""
DRAIN = 3
"""Seconds that a worker gets to finish."""
A_FEW = 3
"""Seconds beyond these in which it must have left, on a machine that has other work too."""


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[Proxy]:
    """A way to the broker."""
    broker = yarl.URL(amqp_url)
    async with proxy_to(broker.host or "", broker.port or 5672) as proxy:
        yield proxy


def through(proxy: Proxy, amqp_url: str, heartbeat: int = 60) -> str:
    """The broker's URL by way of the proxy; `heartbeat` is in seconds."""
    return str(yarl.URL(amqp_url).with_host("127.0.0.1").with_port(proxy.port) % {"heartbeat": heartbeat})


async def has_lost_it(worker: Worker, times: int) -> None:
    """Return once the worker has said so often that it lost the broker."""
    await worker.until(lambda: worker.log.count(LOST) == times, "without its broker")


async def reason(worker: Worker) -> str:
    """Why the worker is not ready, in its words."""
    status, text = await asyncio.to_thread(worker.probe, "readyz")
    assert status == httpx.codes.SERVICE_UNAVAILABLE
    return str(json.loads(text)["reasons"]["broker"])


async def is_back(worker: Worker, times: int) -> None:
    """Return once the worker consumes again after it lost the broker so often, and said each of this once."""
    await worker.is_ready()
    assert (worker.log.count(LOST), worker.log.count(CONSUMING)) == (times, times + 1)
    assert not worker.deaths


async def test_cut_at_any_moment(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, proxy: Proxy
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=50, amqp_url=through(proxy, amqp_url))

    async def cut(random: Random) -> None:
        for _ in range(3):
            times = worker.log.count(LOST) + 1
            proxy.cut()
            await has_lost_it(worker, times)
            await is_back(worker, times)
            await asyncio.sleep(random.uniform(0, 0.3))

    await trials.endure("link to the broker cut at random, three times", cut, ledger, worker, seconds=2)


async def test_cut_within_a_frame(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, proxy: Proxy
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=50, amqp_url=through(proxy, amqp_url))

    async def cut(random: Random) -> None:
        times = worker.log.count(LOST) + 1
        proxy.cut_after(random.randint(1, 4_000))
        await ledger.publish(Fleet(random, devices=4))  # 20 reports have more bytes than that
        await has_lost_it(worker, times)
        await is_back(worker, times)

    await trials.endure("link to the broker cut within a frame", cut, ledger, worker)


async def test_a_black_hole_is_noticed_by_the_heartbeat(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, proxy: Proxy
) -> None:
    way = through(proxy, amqp_url, heartbeat=1)
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=50, amqp_url=way)

    async def swallow(_: Random) -> None:
        times = worker.log.count(LOST) + 1
        proxy.swallow = True
        await has_lost_it(worker, times)
        assert "nothing was heard from the broker, not even a heartbeat" in await reason(worker)
        proxy.swallow = False
        await is_back(worker, times)

    await trials.endure("link to the broker a black hole for seconds", swallow, ledger, worker)


async def test_a_half_open_link_is_noticed_by_a_look_at_the_queues(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, proxy: Proxy
) -> None:
    way = through(proxy, amqp_url, heartbeat=4)  # so the worker would wait for it for 15 s
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=50, amqp_url=way, stall_timeout=STALL)

    async def forget(_: Random) -> None:
        times = worker.log.count(LOST) + 1
        proxy.forget()
        began = time.monotonic()
        await has_lost_it(worker, times)
        assert await reason(worker) == "does not answer"
        assert time.monotonic() - began < STALL
        await is_back(worker, times)

    await trials.endure("link to the broker half-open", forget, ledger, worker)


@pytest.mark.alone  # its bounds of time are of a machine that does nothing else
async def test_told_to_stop_in_a_black_hole(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, proxy: Proxy
) -> None:
    way = through(proxy, amqp_url, heartbeat=1)
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=50, amqp_url=way, drain_timeout=DRAIN)

    async def stop(_: Random) -> None:
        before = len(worker.deaths)
        proxy.swallow = True
        worker.signal(signal.SIGTERM)
        told = time.monotonic()
        await worker.has_died(before + 1)
        assert time.monotonic() - told < DRAIN + A_FEW
        proxy.swallow = False
        await worker.is_ready()

    await trials.endure("told to stop while the link is a black hole", stop, ledger, worker)
    assert set(worker.deaths) == {0}


async def test_slow(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, proxy: Proxy
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=50, amqp_url=through(proxy, amqp_url))

    async def delay(random: Random) -> None:
        for _ in range(5):
            proxy.delay = random.uniform(0.02, 0.4)
            await ledger.publish(Fleet(random, devices=4))
        proxy.delay = 0

    await trials.endure("link to the broker slow", delay, ledger, worker)
    assert LOST not in worker.log


async def test_a_node_that_failed_is_tried_after_the_others(amqp_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:  # the kernel takes connections, and nothing answers
        hung.setblocking(False)
        broker, port = yarl.URL(amqp_url), hung.getsockname()[1]
        nodes = f"127.0.0.1:{port},{broker.host}:{broker.port or 5672}"
        login = f"{broker.raw_user}:{broker.raw_password}"
        settings = Settings(amqp_url=SecretStr(f"amqp://{login}@{nodes}{broker.path}?timeout=0.2"))
        failures = Failures()
        for _ in range(20):
            async with connected(settings, failures) as connection:
                assert connection.url.port != port
        with suppress(BrokerLost):
            async with connected(settings, failures):
                raise BrokerLost
        assert failures.last(settings.brokers) == settings.brokers, "both have failed"
        tries = 0
        with suppress(BlockingIOError):
            while True:
                hung.accept()[0].close()
                tries += 1
    assert tries == 1
