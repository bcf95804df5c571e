"""With 100,000 dead letters the commands still answer at once; `--full -s` prints the figures of their page."""

import time
from uuid import uuid4

import pytest
from sqlalchemy import Text, make_url

from tests.support.brokering import report
from tests.support.command import Deviceops
from tests.support.databases import in_a_thread
from tests.support.sending import message
from worker.config.reporters import Reporters, Service
from worker.processing.batches import process_messages
from worker.store.bulk import Statement
from worker.store.database import Database
from worker.store.statements.dead_letters import PARKED

INSTANT = 1.0
"""Seconds that a command may take beyond the start of the program."""


async def reject(url: str, number: int) -> str:
    """Have `number` messages rejected in four ways, about a hundred operations; gives one of those."""
    operations = [str(uuid4()) for _ in range(100)]
    devices = [(operations[n % 100], str(uuid4())) for n in range(number // 4)]
    reporters = Reporters({"drift-service": Service()})
    database = Database(make_url(url))
    try:
        for start in range(0, len(devices), 500):
            batch = devices[start : start + 500]
            bodies = [report(state, device, on) for state in ("CREATED", "FAILURE") for on, device in batch]
            for operation, device in batch:
                bodies += [
                    report("SUCCESS", device, operation),
                    report("SUCCESS", None, operation),
                    {**report("FAILURE", device, operation), "service_id": "rogue"},
                    {**report("FAILURE", device, operation), "state": f"FINE{start}"},
                ]
            await process_messages(
                database, [message(body, message_id=str(uuid4())) for body in bodies], reporters=reporters
            )
    finally:
        await database.close()
    return operations[0]


@pytest.mark.alone
def test_many_dead_letters_are_found_counted_and_replayed_at_once(deviceops: Deviceops, full: bool) -> None:
    number = 100_000 if full else 10_000
    operation = in_a_thread(reject(deviceops.settings["database_url"], number))

    def seconds(*arguments: str) -> float:
        began = time.monotonic()
        deviceops.out(*arguments)
        return time.monotonic() - began

    start = min(seconds("--help") for _ in range(3))
    print(f"\n{number:,} dead letters; {start:.2f} s to start, then, in seconds:")  # noqa: T201
    for command in (
        f"list --operation {operation}",
        "list --group-by reason",
        "list --group-by detail",
        "replay --service rogue --limit 1000 --dry-run",
        "replay --service rogue --limit 1000",
    ):
        taken = min(seconds("dead-letters", *command.split()) for _ in range(2)) - start
        print(f"{taken:6.2f}  {command.replace(operation, '…')}")  # noqa: T201
        assert taken < INSTANT, command
    groups = deviceops.document("dead-letters", "list", "--group-by", "reason")
    assert sum(group["count"] for group in groups) == number - 2_000, "two replays, of a thousand each"


async def test_a_registration_looks_for_its_own_parked_reports_and_not_through_all(
    postgresql_database: Database,
) -> None:
    explaining = Statement(f"EXPLAIN {PARKED._sql}", PARKED.rows, {"plan": Text})
    async with postgresql_database.read() as connection:
        plan = "\n".join(line for (line,) in await explaining.run(connection, [(uuid4(),)], limit=10))

    # The rows of the batch lead. PostgreSQL keeps plans, and makes this one while nothing is parked.
    assert plan.index("Function Scan on") < plan.index("dead_letters"), plan


def test_more_ids_can_be_named_than_a_statement_has_parameters(deviceops: Deviceops) -> None:
    deviceops.out("ingest", "-", lines="one\ntwo\nthree\n")
    ids = [str(letter["id"]) for letter in deviceops.document("dead-letters", "list")]
    many = [str(number) for number in range(1_000_000, 1_040_000)]

    assert len(deviceops.document("dead-letters", "list", *ids[:2], *many)) == 2
    unknown = deviceops("dead-letters", "discard", *ids, *many, "--because", "x")
    assert (unknown.returncode, unknown.stderr) == (1, f"deviceops: dead letter {many[0]} is unknown\n")
