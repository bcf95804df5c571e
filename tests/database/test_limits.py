"""Messages as large as may be, and larger."""

import json

from tests.support.databases import dead_letters, kept_body, read
from tests.support.sending import DEVICES, OPERATIONS, message, process, report_body
from worker.model.messages import MAX_BODY
from worker.model.outcomes import Reason
from worker.store.database import Database

DETAIL = "body: is larger than 67,108,864 bytes"


def filled(size: int) -> bytes:
    """A good report of so many bytes."""
    bare = json.dumps(report_body(OPERATIONS[0], DEVICES[0], "CREATED", reason="")).encode()
    return bare.replace(b'"reason": "', b'"reason": "' + b"x" * (size - len(bare)))


async def test_a_message_as_large_as_may_be_is_applied(database: Database) -> None:
    tally = await process(database, [[message(filled(MAX_BODY))]])

    assert tally.document()["applied"] == 1
    assert OPERATIONS[0] in (await read(database)).operations


async def test_a_message_that_is_larger_is_one_dead_letter_that_keeps_its_bytes(database: Database) -> None:
    large = message(filled(MAX_BODY + 1))

    for _ in range(2):
        await process(database, [[large, message(report_body(OPERATIONS[0], DEVICES[1], "CREATED"))]])

    assert await dead_letters(database) == [(Reason.MALFORMED, DETAIL, 1)]
    is_kept = await kept_body(database) == large.body
    assert is_kept
    assert (await read(database)).operations[OPERATIONS[0]].counters["resolved_device_count"] == 1
