"""Outages of the database as a worker tells of them, and sessions of others on the same database."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import asyncpg
from sqlalchemy import make_url

from tests.faults.fleet import Fleet
from tests.faults.ledger import PATIENCE, Ledger
from tests.faults.workers import Worker

PAUSED = "database unavailable, paused"
RESUMED = "database available, resumed"

OF_WORKERS = "datname = current_database() AND application_name = 'deviceops'"
"""Which sessions in pg_stat_activity are those of workers, and of the ledger."""
_WAITS_FOR_LOCK = f"SELECT count(*) FROM pg_stat_activity WHERE {OF_WORKERS} AND wait_event_type = 'Lock'"  # noqa: S608


def said(log: str, event: str) -> list[dict[str, Any]]:
    """The lines of a worker's log that tell of an event."""
    return [line for line in entries(log) if line["event"] == event]


def entries(log: str) -> list[dict[str, Any]]:
    """The complete JSON lines of a worker's log."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{") and line.endswith("}")]


def assert_told_once(log: str, outages: int = 1) -> None:
    """A log has one line for the beginning and one for the end of each outage, and no line of others."""
    assert (len(said(log, PAUSED)), len(said(log, RESUMED))) == (outages, outages), log
    assert_clean(log)


def assert_told_in_turn(log: str, outages: int = 1) -> None:
    """A log tells of at least so many outages: one line for the beginning and one for the end of each, in turn."""
    lines = sorted(said(log, PAUSED) + said(log, RESUMED), key=lambda line: line["timestamp"])
    assert [line["event"] for line in lines] == [PAUSED, RESUMED] * (len(lines) // 2), log
    assert len(lines) >= 2 * outages, log
    assert_clean(log)


def assert_clean(log: str) -> None:
    """A log has lines of our own only: no traceback, and no warning of Python's."""
    assert all(line.startswith("{") for line in log.splitlines()), log


async def is_paused(worker: Worker, ledger: Ledger, random: Random) -> None:
    """Return once a worker says that its database fails; it gets more reports, lest it needs none now."""
    await has_paused(worker, ledger, random, len(said(worker.log, RESUMED)))


async def has_paused(worker: Worker, ledger: Ledger, random: Random, times: int) -> None:
    """Return once it has said so more often than so many times, whether or not it goes on by now."""
    deadline = time.monotonic() + PATIENCE
    while len(said(worker.log, PAUSED)) <= times:
        assert time.monotonic() < deadline, f"the worker is not paused:\n{worker.log}"
        await ledger.publish(Fleet(random, devices=5))
        await asyncio.sleep(0.2)


@asynccontextmanager
async def feeding(ledger: Ledger, random: Random) -> AsyncIterator[None]:
    """Have reports come in for the length of a block, lest a fault strikes when all is done."""
    is_over = False

    async def feed() -> None:
        while not is_over:
            await ledger.publish(Fleet(random, devices=10))
            await asyncio.sleep(0.2)

    task = asyncio.create_task(feed())
    try:
        yield
    finally:
        is_over = True
        await task


async def waits_for_a_lock(own: asyncpg.Connection) -> bool:
    """Whether a worker does, on the database of a session."""
    await own.execute("SELECT pg_stat_clear_snapshot()")  # within a transaction, the first look would stay
    return bool(await own.fetchval(_WAITS_FOR_LOCK))


@asynccontextmanager
async def session(database_url: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of somebody else's to a PostgreSQL database."""
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url, server_settings={"application_name": "others", **settings})
    try:
        yield connection
    finally:
        connection.terminate()
