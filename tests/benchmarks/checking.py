"""Whether a consumer did the full work: a rate of one that did less is worth nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import make_url, text

from tests.benchmarks.traffic import Expected
from worker.store.database import Database
from worker.store.group_recount import WRONG_GROUPS
from worker.store.recount import Facts, find_drift

SETTLED = """
SELECT (SELECT count(*) FROM device_operations),
    (SELECT count(*) FROM device_operation_activity) + (SELECT count(*) FROM dead_letters WHERE status = 'open')
"""


def check_tally(tallies: Iterable[Mapping[str, Any]], expected: Expected) -> None:
    """Fail unless workers say that all came, and that some of it was bad in each way."""
    received = sum(tally["received"] for tally in tallies)
    assert received == expected.received, f"{received:,} were received of {expected.received:,}"


async def check_database(url: str, expected: Expected, *, groups_by_cause: bool = True) -> None:
    """Fail unless every report is in the history or a dead letter, once, and all counters equal a recount.

    A consumer that does not count `groups_by_cause` does less than deviceops: only these may be missing.
    """
    database = Database(make_url(url))
    try:
        async with database.read() as connection:
            device_operations, settled = (await connection.execute(text(SETTLED))).one()
        _, drifted = await find_drift(database)
    finally:
        await database.close()
    assert device_operations == expected.device_operations, f"{device_operations:,} are registered, not {expected}"
    assert settled == expected.settled, f"{settled:,} are settled, not {expected}"
    if not groups_by_cause:
        drifted = [drift for drift in drifted if _without_groups(drift.stored) != _without_groups(drift.actual)]
    assert not drifted, f"counters differ from a recount: {drifted[:3]}"


def _without_groups(facts: Facts | None) -> Facts:
    return {name: value for name, value in (facts or {}).items() if name != WRONG_GROUPS}
