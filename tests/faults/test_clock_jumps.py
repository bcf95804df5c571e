"""A worker measures no time by the wall clock, so it does not matter where that jumps."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import distribution
from pathlib import Path
from random import Random

import httpx
import pytest
import yarl

from tests.faults.fleet import Fleet
from tests.faults.scene import NewScene, Scene
from tests.faults.trials import Trials
from tests.faults.workers import Worker
from tests.support.proxy import proxy_to

JUMPS = {"forwards by a day": timedelta(days=1), "backwards by an hour": timedelta(hours=-1)}
ANY_JUMP = pytest.mark.parametrize("jump", JUMPS)
TIMEOUTS = {"database_timeout": 20, "hold_timeout": 20, "stall_timeout": 20}
"""In seconds: more than anything here takes, less than any jump."""
LOST = "broker connection lost, reconnecting"
"""What a worker says once in every outage of its broker."""


class Clock:
    """The wall clock of a worker, by libfaketime."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "clock"
        self.set(timedelta())

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process tell the time by this clock; only the wall clock's time."""
        library = distribution("libfaketime").locate_file("libfaketime/vendor/libfaketime/src/libfaketime.so.1")
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset: timedelta) -> None:
        """Have it be so far from the true time."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{offset.total_seconds():+.0f}")
        new.rename(self._offset)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that is right."""
    return Clock(tmp_path)


async def by_this(clock: Clock, scene: Scene) -> Scene:
    """The scene, its worker started again with this clock."""
    assert await scene.worker.stop() == 0
    scene.worker.start(clock.environment)
    await scene.worker.is_ready()
    return scene


async def jumps(clock: Clock, worker: Worker, offset: timedelta) -> None:
    """Set the clock, and return once the worker tells that time."""
    clock.set(offset)

    def is_there() -> bool:
        told = httpx.get(f"http://127.0.0.1:{worker.port}/livez", timeout=5).headers["date"]
        return abs(parsedate_to_datetime(told) - datetime.now(UTC) - offset) < timedelta(minutes=1)

    await worker.until(is_there, f"at {offset}")


@ANY_JUMP
async def test_the_clock_jumps_and_nothing_happens(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, clock: Clock, jump: str
) -> None:
    way = str(yarl.URL(amqp_url) % {"heartbeat": 2})
    scene = await new_scene(amqp_url, sturdy_database, batch_size=50, amqp_url=way, **TIMEOUTS)
    worker, ledger = await by_this(clock, scene)

    async def jump_there_and_back(random: Random) -> None:
        await jumps(clock, worker, JUMPS[jump])
        await ledger.publish(Fleet(random, devices=4))
        await jumps(clock, worker, timedelta())

    await trials.endure(f"clock jumps {jump}, and back", jump_there_and_back, ledger, worker)
    assert "warning" not in worker.log
    assert worker.deaths == [0, 0], "as it was told"


@ANY_JUMP
async def test_the_clock_jumps_in_an_outage_and_it_takes_as_long_as_any(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, clock: Clock, jump: str
) -> None:
    broker = yarl.URL(amqp_url)
    async with proxy_to(broker.host or "", broker.port or 5672) as proxy:
        way = str(broker.with_host("127.0.0.1").with_port(proxy.port))
        scene = await new_scene(amqp_url, sturdy_database, batch_size=50, amqp_url=way, **TIMEOUTS)
        worker, ledger = await by_this(clock, scene)

        async def lose_the_broker(_: Random) -> None:
            before = worker.events.count(LOST)
            proxy.swallow = True
            proxy.cut()
            await worker.until(lambda: worker.events.count(LOST) > before, "without its broker")
            await jumps(clock, worker, JUMPS[jump])
            proxy.swallow = False
            proxy.cut()
            await worker.is_ready()
            await jumps(clock, worker, timedelta())

        await trials.endure(f"clock jumps {jump} in an outage", lose_the_broker, ledger, worker)
    told = [json.loads(line) for line in worker.log.splitlines()]
    lasted = [line["after"] for line in told if line["event"] == "consuming"]
    assert len(lasted) == 2 + trials.tries
    assert all(0 <= seconds < TIMEOUTS["stall_timeout"] for seconds in lasted), lasted
    assert worker.deaths == [0, 0], "as it was told"
