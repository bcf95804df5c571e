"""What `dead-letters export` writes, `import` reads: from either database into either, whatever senders wrote."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from tests.support import odd_values
from tests.support.databases import NewDatabase, clear
from tests.support.letters import ALL
from tests.support.sending import DEVICES, NOW, OPERATIONS, encoded, process, report_body
from worker.dead_letters.discard import discard
from worker.dead_letters.export_import import export, import_, read_line
from worker.model.messages import Message, Origin
from worker.store.database import Database
from worker.store.selection import Selection

KINDS = "sqlite", "postgresql"
EVERYTHING = Selection(status=None)
ELSEWHERE = "fingerprint", "device_operation_id", "report_id"
"""What a closed one does not take along: there it stands for no report."""

values = st.recursive(
    st.one_of(
        odd_values.values,
        st.sampled_from([b"\0\xff", Decimal("1.50"), datetime(2026, 1, 31, tzinfo=UTC), "\\u0000", "\0", 2**70]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(odd_values.texts, inner, max_size=2),
    max_leaves=4,
)
tables = st.dictionaries(odd_values.texts | st.sampled_from(["\\u0000", "\0"]), values, max_size=3)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
bodies = st.one_of(
    odd_values.bodies,
    st.sampled_from(["CREATED", "SUCCESS", "FAILURE"]).map(
        lambda state: encoded(report_body(OPERATIONS[0], DEVICES[0], state))
    ),
    odd_values.texts.map(
        lambda text: encoded(report_body(OPERATIONS[1], DEVICES[1], "SUCCESS", report_id=text, reason="a\0b"))
    ),
)


def message(body: bytes, id_: str | None, type_: str | None, origin: Origin, abandoned: str | None) -> Message:
    return Message(body, NOW, id_, type_, NOW, lambda: origin, abandoned=abandoned, redeliveries=9)


messages = st.builds(
    message,
    bodies,
    st.none() | texts,
    st.none() | st.sampled_from(["device-operation.report", "device-operation.reports", "\\u0000"]),
    st.builds(Origin, texts, texts, tables, tables),
    st.sampled_from([None, None, "given up"]),
)


@pytest.fixture(params=[f"{source} to {target}" for source in KINDS for target in KINDS])
async def databases(request: pytest.FixtureRequest) -> AsyncIterator[list[Database]]:
    """One to export from and one to import into, of each pair of kinds."""
    creates: list[NewDatabase] = [
        request.getfixturevalue(f"new_{kind}_database") for kind in request.param.split(" to ")
    ]
    made = [Database(make_url(create())) for create in creates]
    yield made
    for each in made:
        await each.close()


async def exported(database: Database) -> list[bytes]:
    return [line async for page in export(database, EVERYTHING) for line in page]


def told(lines: list[bytes]) -> list[dict[str, Any]]:
    """What lines say, but for ids, and for what importing adds: that it did, and a try of what is parked."""
    documents = [json.loads(line) for line in lines]
    for document in documents:
        del document["id"]
        if document["status"] != "open":
            for name in ELSEWHERE:
                del document[name]
        actions = [entry["action"] for entry in document["history"]]
        if "imported" in actions:
            document["history"] = document["history"][: actions.index("imported")]
        if document["reason"] == "unknown_device_operation" and document["status"] == "open":
            document["attempts"] = 1
    return sorted(documents, key=json.dumps)


@given(some=st.lists(messages, min_size=1, max_size=4), is_closed=st.booleans())
@settings(max_examples=12)
async def test_export_import_export_is_equal_but_for_ids(
    databases: list[Database], some: list[Message], is_closed: bool
) -> None:
    here, there = databases
    for each in databases:
        await clear(each)
    await process(here, [some])
    if is_closed:
        await discard(here, ALL, "a test", actor="me")
    lines = await exported(here)

    new = await import_(there, [read_line(line, 1) for line in lines], actor="me")

    again = await exported(there)
    assert new == len(lines)
    assert told(again) == told(lines)
    await clear(here)
    await import_(here, [read_line(line, 1) for line in again], actor="me")
    assert told(await exported(here)) == told(lines)
