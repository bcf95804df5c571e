"""A replay that is killed, or runs twice at once: every report has one effect, and rows and states agree."""

import json
import random
import sqlite3
import subprocess
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.databases import in_a_thread

STATES = ["INITIATED", "DISPATCHED", "SUCCESS"]
DEVICES = 1_000
"""Each with a dead letter for each of these states."""
UNTRUSTING = json.dumps({"registrar": {}})

Query = Callable[[str], list[Any]]


@pytest.fixture
def query(deviceops: Deviceops) -> Query:
    """Plain SQL on the command's database."""
    url = make_url(deviceops.settings["database_url"])

    async def on_postgresql(sql: str) -> list[Any]:
        connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    def on_sqlite(sql: str) -> list[Any]:
        with sqlite3.connect(str(url.database), timeout=30) as connection:
            return connection.execute(sql).fetchall()

    return on_sqlite if url.get_backend_name() == "sqlite" else lambda sql: in_a_thread(on_postgresql(sql))


def reject_a_fleet(deviceops: Deviceops) -> UUID:
    """Register devices, and have every later report of theirs refused for its sender."""
    operation = uuid4()
    devices = [str(uuid4()) for _ in range(DEVICES)]
    lines = [
        json.dumps({"operation_id": str(operation), "device_id": device, "state": state, "service_id": service})
        for state, service in [("CREATED", "registrar"), *((state, "drift-service") for state in STATES)]
        for device in devices
    ]
    summary = deviceops.with_settings(services=UNTRUSTING).document("ingest", "-", lines="\n".join(lines))
    assert summary["dead_lettered"] == {"unknown_service": len(STATES) * DEVICES}
    return operation


def resolved(query: Query) -> int:
    """How many dead letters are resolved; each must have its one entry in the history, and no other must."""
    [(letters, entries, notes)] = query(
        "SELECT (SELECT count(*) FROM dead_letters WHERE status = 'resolved'),"
        "       (SELECT count(*) FROM device_operation_activity WHERE service_id = 'drift-service'),"
        "       (SELECT count(*) FROM dead_letter_history WHERE action = 'replayed')"
    )
    assert letters == entries == notes
    return int(letters)


def assert_every_report_had_its_one_effect(deviceops: Deviceops, operation: UUID) -> None:
    counts = deviceops.document("status", str(operation))["operation_stats"]["device_operation_statuses_count"]
    assert counts["dispatched_device_count"] == counts["success_device_count"] == DEVICES
    assert deviceops.document("recount")["drifted"] == []
    assert deviceops.document("dead-letters", "list") == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_replay_that_is_killed_at_any_moment_is_finished_by_the_next(
    deviceops: Deviceops, query: Query, full: bool, request: pytest.FixtureRequest
) -> None:
    """Fifty times with --full, on each database; every kill comes at a random moment of the work itself."""
    moments = random.Random(request.node.name)  # noqa: S311  # a test's moments, not a secret
    kills = cut_short = 0
    while kills < (50 if full else 6):
        operation = reject_a_fleet(deviceops)
        begun, total = resolved(query), len(STATES) * DEVICES
        while (done := resolved(query)) < begun + total:
            replay = deviceops.start("dead-letters", "replay", "--all", stdout=subprocess.DEVNULL)
            while replay.poll() is None and resolved(query) == done:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.15))
            replay.kill()
            replay.communicate()
            kills += 1
            cut_short += resolved(query) < begun + total
        assert_every_report_had_its_one_effect(deviceops, operation)
    assert cut_short > kills // 3, "the moments are badly chosen"


@pytest.mark.long
def test_two_replays_at_once_have_one_effect_also_when_one_is_killed(deviceops: Deviceops, query: Query) -> None:
    operation = reject_a_fleet(deviceops)
    replays = [deviceops.start("dead-letters", "replay", "--all", "--json") for _ in range(3)]
    while not resolved(query):
        time.sleep(0.005)
    replays[0].kill()
    replays[0].communicate()
    outputs = [replay.communicate() for replay in replays[1:]]
    assert [replay.returncode for replay in replays[1:]] == [0, 0], outputs

    summaries = [json.loads(out) for out, _ in outputs]
    assert sum(summary["applied"] for summary in summaries) <= len(STATES) * DEVICES
    assert not any(summary["still_dead"] for summary in summaries)
    assert resolved(query) == len(STATES) * DEVICES
    assert_every_report_had_its_one_effect(deviceops, operation)
