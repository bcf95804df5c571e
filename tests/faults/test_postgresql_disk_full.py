"""A PostgreSQL whose disk is full, even one that dies of it, holds a worker up until there is room again."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from random import Random

import asyncpg
import pytest

from tests.faults.disks import SmallDisk, small_disk
from tests.faults.outages import assert_told_in_turn, is_paused, session
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.support.databases import PostgresqlServer
from tests.support.services import PrivatePostgreSQL


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """Room for a PostgreSQL and a little more."""
    with small_disk(megabytes=150) as disk:
        yield disk


@pytest.fixture
def cramped(disk: SmallDisk) -> Iterator[PrivatePostgreSQL]:
    """A PostgreSQL on that disk."""
    with PrivatePostgreSQL(disk.folder) as server:
        yield server


@pytest.mark.parametrize("fatally", [False, True], ids=["refuses", "dies"])
async def test_disk_full(
    trials: Trials, new_scene: NewScene, amqp_url: str, disk: SmallDisk, cramped: PrivatePostgreSQL, fatally: bool
) -> None:
    url = PostgresqlServer(cramped.url).create()
    worker, ledger = await new_scene(amqp_url, url, batch_size=50)

    async def fill(random: Random) -> None:
        await asyncio.to_thread(disk.fill)
        await is_paused(worker, ledger, random)
        if fatally:
            await _exhaust_the_log(url)
        disk.make_room()
        await _is_back(cramped)

    what = "dies of it" if fatally else "refuses to write"
    await trials.endure(f"disk full: PostgreSQL {what}", fill, ledger, worker)
    # What a small batch needs may fit into what the try before it has left behind: then the next one fails.
    assert_told_in_turn(worker.log, trials.tries)


async def _exhaust_the_log(url: str) -> None:
    """Have the server begin new files of its log until it dies of it."""
    async with session(url) as own:
        with pytest.raises(asyncpg.ConnectionDoesNotExistError, match=r"pg_wal.*No space left"):
            await _write_for_ever(own)


async def _write_for_ever(own: asyncpg.Connection) -> None:
    while True:
        await own.execute("SELECT pg_logical_emit_message(true, '', '')")
        await own.execute("SELECT pg_switch_wal()")


async def _is_back(server: PrivatePostgreSQL) -> None:
    """Return once a server answers that may start again by itself, or else needs to be started."""
    while True:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            return await server.connect(server.url)
        if not server.is_running:
            await asyncio.to_thread(server.start)
        await asyncio.sleep(0.05)
