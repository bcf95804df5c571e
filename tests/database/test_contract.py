"""The examples of the contract have the outcomes that they name, and cause the changes that it shows."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import pytest

from statemachine import Verdict
from tests.support.sending import NOW, encoded, process
from worker.asyncapi import change_examples, document
from worker.asyncapi.examples import EXAMPLES
from worker.model import changes
from worker.model.changes import KINDS, ChangeType, Told
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.store import change_log, outbox
from worker.store.change_log import LoggedChange
from worker.store.database import Database


@pytest.fixture
def _everything_is_told() -> Iterator[None]:
    before = changes.told()
    changes.tell(Told.ALL)
    yield
    changes.tell(before)


def outcomes(tally: Tally) -> Counter[str]:
    """What became of the reports of a message, but for those that it released."""
    found: Counter[str] = Counter(duplicate=tally.duplicate, announced=tally.announced)
    found.update({str(name): count for name, count in (*tally.verdicts.items(), *tally.dead_lettered.items())})
    return found - Counter({Verdict.APPLIED: tally.released})


def timeless(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A change's body without what differs from run to run: its time, and the order of devices."""
    known = {name: value for name, value in body.items() if name != "at"}
    if "changes" in known:
        known["changes"] = sorted(known["changes"], key=lambda each: str(each["device_id"]))
    return known


async def told_after(database: Database, position: int) -> list[LoggedChange]:
    """The changes after a position."""
    async with database.write() as connection:
        await outbox.number(connection)
        return list(await change_log.read_after(connection, position, 1_000))


async def test_of_each_example_becomes_what_it_says(database: Database) -> None:
    for example in EXAMPLES:
        sent = Message(encoded(example.body), NOW, message_id=example.message_id, type=example.type)

        tally = await process(database, [[sent]])

        assert outcomes(tally) == Counter(example.outcomes), example.name


@pytest.mark.usefixtures("_everything_is_told")
async def test_each_example_causes_the_changes_that_are_shown_and_all_that_are_told_have_their_schema(
    database: Database,
) -> None:
    validators = {
        name: jsonschema_rs.Draft202012Validator(document.json_schema(name), validate_formats=True)
        for name in KINDS
    }
    caused: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    position = 0
    for example in EXAMPLES:
        sent = Message(encoded(example.body), NOW, message_id=example.message_id, type=example.type)
        await process(database, [[sent]])
        for change in await told_after(database, position):
            position, body = change.position, json.loads(change.payload)
            validators[ChangeType(change.type)].validate(body)
            assert body.get("sequence") == change.sequence
            caused.setdefault(example.name, []).append((change.type, change.routing_key, timeless(body)))

    for shown in change_examples.EXAMPLES:
        assert (shown.type, shown.routing_key, timeless(shown.body)) in caused[shown.cause], shown.name
    assert {type_ for each in caused.values() for type_, _, _ in each} == KINDS.keys()
