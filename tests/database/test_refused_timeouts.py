"""A device operation that the database refuses to change does not hold up the others."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from tests.support.databases import read
from tests.support.elapsing import elapse
from tests.support.sending import ANNOUNCEMENT, OPERATIONS, announcement_body, message, process, report_body
from worker.model.outcomes import Tally
from worker.processing import refusals
from worker.processing.expiry import Expirer, all_of_them
from worker.store.database import Database

OPERATION = OPERATIONS[0]
DEVICES = [uuid4() for _ in range(500)]
BAD = [DEVICES[7], DEVICES[300]]


async def announce(database: Database, devices: list[UUID] | None = None, **fields: object) -> None:
    await process(database, [[message(announcement_body(OPERATION, devices, **fields), ANNOUNCEMENT)]])


@asynccontextmanager
async def refusing(database: Database) -> AsyncIterator[None]:
    """The database refuses every change of the bad ones, by a trigger."""
    bad = ", ".join(f"'{each.hex if database.is_sqlite else each}'" for each in BAD)
    on = f"TRIGGER refuse BEFORE UPDATE ON device_operations FOR EACH ROW WHEN (old.device_id IN ({bad}))"
    if database.is_sqlite:
        making = [f"CREATE {on} BEGIN SELECT RAISE(ABORT, 'not this one'); END"]
        dropping = "DROP TRIGGER refuse"
    else:
        function = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        making = [
            f"{function} $$ BEGIN RAISE EXCEPTION 'not this one'; END $$",
            f"CREATE {on} EXECUTE FUNCTION refuse()",
        ]
        dropping = "DROP TRIGGER refuse ON device_operations"
    async with database.write() as connection:
        for statement in making:
            await connection.execute(text(statement))
    yield
    async with database.write() as connection:
        await connection.execute(text(dropping))


async def states(database: Database) -> Mapping[UUID, str]:
    found = (await read(database)).operations[OPERATION].devices
    return {id_: device.state for id_, device in found.items()}


async def act(expirer: Expirer) -> list[str]:
    """Do all that can be done; returns the devices that were logged as refused, and which work it was."""
    with capture_logs() as logs:
        await expirer._apply_settings_and_do_tasks()
        while await expirer.act():
            pass
    refused = [line for line in logs if line["event"].startswith("the database refuses ")]
    assert all(line["operation_id"] == str(OPERATION) and "not this one" in line["error"] for line in refused)
    assert sorted(line["device_id"] for line in refused) == sorted(map(str, BAD)) or not refused
    return sorted({line["event"] for line in refused})


async def test_a_timeout_that_is_refused_is_left_out_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await announce(database, DEVICES, timeouts={"total": 60})
    await elapse(database, 61)
    tally = Tally()
    expirer = Expirer(database, all_of_them, tally.add)
    async with refusing(database):
        assert await act(expirer) == ["the database refuses a timeout"]
        assert tally.timeouts.total() == 498
        found = await states(database)
        assert {found[each] for each in BAD} == {"CREATED"}
        assert expirer.refused == 2
        assert not await act(expirer), "they are left out for a while"
        monkeypatch.setattr(refusals, "_now", lambda: 1e9)
        assert await act(expirer) == ["the database refuses a timeout"]
    assert not await act(expirer)
    monkeypatch.setattr(refusals, "_now", lambda: 2e9)
    assert not await act(expirer)
    assert expirer.refused == 0
    assert tally.timeouts.total() == 500


async def test_a_cancellation_that_is_refused_is_left_out_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await announce(database, DEVICES, abort={"failed_percent": 1, "min_settled": 1, "action": "cancel"})
    await process(database, [[message(report_body(OPERATION, DEVICES[0], "FAILURE"))]])
    tally = Tally()
    expirer = Expirer(database, all_of_them, tally.add)
    async with refusing(database):
        assert await act(expirer) == ["the database refuses a cancellation"]
        assert tally.verdicts == {"applied": 497}
        assert not await act(expirer), "they are left out for a while"
    monkeypatch.setattr(refusals, "_now", lambda: 1e9)
    assert not await act(expirer)
    assert tally.verdicts == {"applied": 499}
    assert expirer.refused == 0


async def test_changed_timeouts_that_are_refused_are_tried_again_after_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are timed out, and do not wait until none is refused any more."""
    await announce(database, DEVICES)
    await announce(database, timeouts={"total": 60})
    tally = Tally()
    expirer = Expirer(database, all_of_them, tally.add)
    async with refusing(database):
        assert await act(expirer) == ["the database refuses changed timeouts"]
        await elapse_others(database)
        assert not await act(expirer)
        assert tally.timeouts.total() == 498
        monkeypatch.setattr(refusals, "_now", lambda: 1e9)
        assert await act(expirer) == ["the database refuses changed timeouts"]
    monkeypatch.setattr(refusals, "_now", lambda: 2e9)
    await elapse(database, 61)
    assert not await act(expirer)
    assert expirer.refused == 0
    assert tally.timeouts.total() == 500


async def elapse_others(database: Database) -> None:
    """Let a minute pass for those that may be changed."""
    less = ", ".join(f"{name} = {name} - 61000" for name in ("registered_at", "expires_at"))
    async with database.write() as connection:
        await connection.execute(text(f"UPDATE device_operations SET {less} WHERE expires_at IS NOT NULL"))  # noqa: S608
