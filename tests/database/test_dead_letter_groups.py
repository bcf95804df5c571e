"""Groups of dead letters by masked detail: each has the number that its filters select."""

from dataclasses import replace

from tests.support.letters import ALL
from tests.support.sending import DEVICES, OPERATIONS, message, process, report_body
from worker.model.outcomes import Reason
from worker.store import dead_letter_groups as groups
from worker.store import dead_letters as letters
from worker.store.database import Database
from worker.store.dead_letter_groups import DetailGroup

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]


async def _groups(database: Database, limit: int = 10, within: int | None = None) -> list[DetailGroup]:
    async with database.read() as connection:
        found = list(await groups.by_detail(connection, ALL, limit, within))
        for group in found:
            selection = replace(ALL, reason=group.reason, detail=group.detail)
            if within is None:
                assert await letters.count(connection, selection) == group.number, group
        return found


async def test_details_that_differ_in_what_is_masked_are_one_group(database: Database) -> None:
    bodies = [report_body(OPERATION, DEVICE, state) for state in ("QQQ", "100%", "_", "a'b\"c", "QQQ  Q")]
    await process(database, [map(message, [*bodies, report_body(OPERATION, DEVICE, "SUCCESS")])])
    found = await _groups(database)
    assert sum(group.number for group in found) == len(bodies) + 1
    assert found[0].reason is Reason.MALFORMED
    assert found[0].detail.startswith("state: <text> is not")
    assert [group.number for group in found] == [len(bodies), 1]


async def test_many_different_details_do_not_hide_a_rare_one(database: Database) -> None:
    many = groups.READ + 200
    bodies = [
        message(report_body(OPERATION, DEVICE, f"FINE{number}"), None, str(number)) for number in range(many)
    ]
    await process(database, [bodies, [message(b"zzz")]])
    found = await _groups(database)
    assert [(group.reason, group.number) for group in found] == [(Reason.MALFORMED, many), (Reason.MALFORMED, 1)]
    assert all(group.oldest <= group.newest for group in found)
    newest = await _groups(database, within=11)
    assert [group.number for group in newest] == [10, 1]


async def test_a_detail_that_no_mask_stands_for_is_its_own_group() -> None:
    odd = "a  b 'c' 17"
    assert groups.grouped_as(odd) == odd, "the masked text has one space"
    assert groups.grouped_as("x 'y' 1") == "x <text> <number>"
    long = "word " * 400 + "17"
    assert len(groups.grouped_as(long)) <= 500
