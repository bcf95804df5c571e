"""No input breaks a batch-mate: whatever stands beside it, a good report is applied, and each bad message is one
dead letter that says what is wrong. On SQLite and on PostgreSQL.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from tests.support import odd_values, rules
from tests.support.databases import clear, dead_letters, kept_body, read
from tests.support.odd_values import GOOD, OTHER, WELL
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    NOW,
    OPERATIONS,
    REPORT,
    REPORTS,
    announcement_body,
    assert_counters_are_a_recount,
    assert_everything_is_accounted_for,
    encoded,
    message,
    process,
    report_body,
)
from worker import jsonl
from worker.model.messages import Message, Origin
from worker.store.database import Database

MEGABYTES = 8 * 2**20
REGISTRATION = message(report_body(OPERATIONS[0], OTHER, "CREATED"), message_id="registration")


def good(state: str) -> Message:
    """A report that is to be applied, whatever stands beside it."""
    return message(report_body(OPERATIONS[0], GOOD, state), message_id=f"good {state}")


def around(hostile: Sequence[Message]) -> list[Message]:
    """A batch of hostile messages with good ones before and after them."""
    return [good("CREATED"), good("PROCESSING"), *hostile, good("SUCCESS")]


async def assert_the_good_ones_are_applied(database: Database) -> None:
    """Nothing that stood beside them mattered."""
    device = (await read(database)).operations[OPERATIONS[0]].devices[GOOD]
    assert (device.state, device.dispatched) == ("SUCCESS", True)
    assert device.history == {(state, "applied"): 1 for state in ("CREATED", "PROCESSING", "SUCCESS")}
    await assert_counters_are_a_recount(database)


async def assert_details_are_lines(database: Database) -> None:
    """Each dead letter says what is wrong in one line that is not too long to read."""
    for _, detail, _ in await dead_letters(database):
        assert detail.splitlines() == [detail]
        assert detail.strip()
        assert len(detail) < 1_000


def with_odd_values() -> Iterator[tuple[str, Message]]:
    """Every field with every odd value, and what to call the message when it breaks something."""
    mark = "the value goes here"
    announcement = announcement_body(OPERATIONS[0])
    places: list[tuple[str, str | None, object]] = [
        *(("report", None, {**WELL, name: mark}) for name in odd_values.REPORT_FIELDS),
        *(("reports", REPORTS, {"reports": [{**WELL, name: mark}]}) for name in odd_values.REPORT_FIELDS),
        *(("announcement", ANNOUNCEMENT, {**announcement, name: mark}) for name in odd_values.ANNOUNCEMENT_FIELDS),
        *(("whole body", kind, mark) for kind in (None, REPORTS, ANNOUNCEMENT)),
        ("all reports", REPORTS, {"reports": mark}),
        ("one of the reports", REPORTS, {"reports": [WELL, mark]}),
    ]
    for place, kind, body in places:
        template = json.dumps(body)
        for value in odd_values.JSON:
            raw = template.replace(json.dumps(mark), value)
            yield f"{place}: {raw:.300}", message(raw.encode(), kind)


async def breaking(database: Database, named: Iterable[tuple[str, Message]]) -> list[str]:
    """The messages that cannot be processed even alone, or not when they are taken up."""
    found = []
    for name, one in named:
        await clear(database)
        try:
            await process(database, [[one], [REGISTRATION]])
        except Exception as error:  # whatever it is, it is what we look for  # noqa: BLE001
            found.append(f"{name} ({type(error).__name__})")
    return found


async def test_no_odd_value_in_any_field_breaks_a_batch(database: Database) -> None:
    """Neither when it comes, nor when the registration that it may have waited for comes after it."""
    named = list(with_odd_values())
    hostile = [one for _, one in named]
    try:
        first = await process(database, [around(hostile), [REGISTRATION]])
    except Exception as error:
        raise AssertionError(f"these break a batch: {await breaking(database, named)}") from error
    letters = await dead_letters(database)
    second = await process(database, [hostile])

    await assert_the_good_ones_are_applied(database)
    assert (await read(database)).operations[OPERATIONS[0]].devices[OTHER].state == "PROCESSING"
    await assert_details_are_lines(database)
    assert_everything_is_accounted_for(first)
    assert first.released > len(odd_values.JSON)  # or the wait for the registration was not tried
    assert await dead_letters(database) == letters
    assert second.received == second.duplicate + second.announced


@pytest.mark.parametrize("name", ["headers", "message_id", "type"])
async def test_no_odd_value_in_an_envelope_breaks_a_batch(database: Database, name: str) -> None:
    named: list[tuple[str, Message]] = []
    for value in odd_values.JSON:
        body = f"unreadable {len(named)}"  # one of its own, so that each becomes a dead letter
        line = json.dumps({"body": body, name: {"x": "value"} if name == "headers" else "value"})
        named.append((f"{name}: {value:.100}", jsonl.as_message(line.replace('"value"', value).encode())))
    try:
        await process(database, [around([one for _, one in named])])
    except Exception as error:
        raise AssertionError(f"these break a batch: {await breaking(database, named)}") from error

    await assert_the_good_ones_are_applied(database)
    await assert_details_are_lines(database)
    assert len(await dead_letters(database)) == len(named)


async def test_an_odd_origin_does_not_matter_to_an_unreadable_message(database: Database) -> None:
    headers: dict[str, JsonValue] = {"x\0": ["\0", "\ud800", 2**70, None, {"y": 1.5}]}
    origin = Origin("an\0exchange", "a\0key", {"app_id": "a\0b"}, headers)
    hostile = Message(b"{", NOW, message_id="one", origin=lambda: origin)

    await process(database, [around([hostile])])

    await assert_the_good_ones_are_applied(database)
    assert [reason for reason, _, _ in await dead_letters(database)] == ["malformed"]


@given(
    hostile=st.lists(
        st.builds(message, odd_values.bodies, odd_values.kinds, st.none() | st.sampled_from("abc")), max_size=4
    )
)
@settings(max_examples=100)
async def test_no_message_breaks_its_batch_mates(database: Database, hostile: list[Message]) -> None:
    await clear(database)

    tally = await process(database, [around(hostile)])

    await assert_the_good_ones_are_applied(database)
    await assert_details_are_lines(database)
    assert_everything_is_accounted_for(tally)


envelopes = st.fixed_dictionaries(
    {"body": odd_values.values | odd_values.reports},
    optional={
        "type": odd_values.kinds | odd_values.values,
        "message_id": odd_values.values,
        "headers": odd_values.values,
    },
)


@given(lines=st.lists(odd_values.bodies | envelopes.map(encoded), max_size=3))
@settings(max_examples=60)
async def test_no_json_line_breaks_its_batch_mates(database: Database, lines: list[bytes]) -> None:
    await clear(database)

    tally = await process(database, [around([jsonl.as_message(line) for line in lines])])

    await assert_the_good_ones_are_applied(database)
    await assert_details_are_lines(database)
    assert_everything_is_accounted_for(tally)


@given(early=odd_values.reports.map(lambda body: {**body, "state": "SUCCESS"}), in_bulk=st.booleans())
@settings(max_examples=60)
async def test_whatever_can_be_read_can_be_parked_and_taken_up(
    database: Database, early: dict[str, Any], in_bulk: bool
) -> None:
    """What was parked ends as if it had come after its registration."""
    one = message({"reports": [early]} if in_bulk else early, REPORTS if in_bulk else None, "early")
    registrations = [
        message(report_body(OPERATIONS[0], device, "CREATED"), message_id=f"registration {device}")
        for device in DEVICES
    ]
    ends = []
    for batches in ([[one], registrations], [registrations, [one]]):
        await clear(database)
        tally = await process(database, [*batches, around([])])
        await assert_the_good_ones_are_applied(database)
        assert_everything_is_accounted_for(tally)
        ends.append(await read(database))
        for operation in ends[-1].operations.values():
            operation.states.clear()  # of these the order does matter

    assert ends[0] == ends[1]


def is_uuid(value: object) -> bool:
    """Whether somebody might take it for a UUID."""
    try:
        UUID(str(value))
    except ValueError:
        return False
    return True


def is_text_or_none(value: object) -> bool:
    """What an optional text may be."""
    return value is None or isinstance(value, str)


def is_state(value: object) -> bool:
    """Whether it equals one of the spellings."""
    return any(value == spelling for some in rules.SPELLINGS.values() for spelling in some)


def unless(is_allowed: Callable[[Any], bool]) -> st.SearchStrategy[Any]:
    """Values that a field must not have."""
    return odd_values.values.filter(lambda value: not is_allowed(value))


def is_count_or_none(value: object) -> bool:
    """Whether a value may be a number of devices; as in JSON Schema, 2.0 is an integer."""
    if isinstance(value, float):
        return value >= 0 and value.is_integer()
    return value is None or (isinstance(value, int) and value >= 0)


BAD_REPORT_FIELDS = {
    "operation_id": unless(is_uuid),
    "device_id": unless(is_uuid),
    "state": unless(is_state),
    "service_id": unless(lambda value: isinstance(value, str)) | st.sampled_from(["", "x" * 256]),
    "operation_type": unless(is_text_or_none),
}
BAD_ANNOUNCEMENT_FIELDS = {
    "id": unless(is_uuid),
    "operation_type": unless(lambda value: isinstance(value, str)) | st.just(""),
    "device_ids": unless(lambda value: value is None or isinstance(value, list))
    | st.lists(unless(is_uuid), min_size=1, max_size=3),
    "device_count": unless(is_count_or_none) | st.just(-1),
}


def with_one_bad(
    body: dict[str, Any], fields: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies with one field that is surely bad."""
    return st.sampled_from(sorted(fields)).flatmap(
        lambda name: fields[name].map(lambda value: {**body, name: value})
    )


def without_one(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Bodies without one of their fields."""
    return [{name: value for name, value in body.items() if name != left_out} for left_out in body]


announcement = announcement_body(OPERATIONS[0])
bad_reports = with_one_bad(WELL, BAD_REPORT_FIELDS) | st.sampled_from(without_one(WELL))
bad_announcements = with_one_bad(announcement, BAD_ANNOUNCEMENT_FIELDS) | st.sampled_from(
    without_one(announcement)
)
bad_bulks = unless(lambda value: isinstance(value, list)).map(lambda value: {"reports": value})
bad_messages = st.one_of(
    st.builds(message, st.binary(), st.sampled_from([None, REPORT, REPORTS, ANNOUNCEMENT])),
    st.builds(message, bad_reports, st.sampled_from([None, REPORT])),
    st.builds(message, bad_announcements, st.just(ANNOUNCEMENT)),
    st.builds(message, bad_bulks | st.just({}), st.just(REPORTS)),
    st.builds(message, bad_reports.map(lambda body: {"reports": [body]}), st.just(REPORTS)),
    st.builds(message, st.just(WELL), st.sampled_from(["unheard of", REPORT.upper(), " ", REPORT + "\n"])),
    # Valid JSON cut short is none.
    st.integers(0, len(encoded(WELL)) - 1).map(lambda length: message(encoded(WELL)[:length])),
)


@given(bad=bad_messages)
@settings(max_examples=150)
async def test_each_bad_message_is_one_dead_letter_however_often_it_comes(
    database: Database, bad: Message
) -> None:
    await clear(database)

    first = await process(database, [around([bad])])
    rows = await dead_letters(database)
    second = await process(database, [[bad], [bad, bad]])

    await assert_the_good_ones_are_applied(database)
    await assert_details_are_lines(database)
    assert [reason for reason, _, _ in rows] == ["malformed"]
    assert await dead_letters(database) == rows
    assert first.document()["dead_lettered"] == {"malformed": 1}
    assert (second.received, second.duplicate) == (3, 3)
    if bad.type != REPORTS:
        assert await kept_body(database) == bad.body


async def test_the_detail_of_a_dead_letter_is_one_line_whatever_the_type_is_called(database: Database) -> None:
    announced = message(announcement_body(OPERATIONS[0], operation_type="CON\nVERGE"), ANNOUNCEMENT)
    other = message(report_body(OPERATIONS[0], OTHER, "CREATED", operation_type="RE\r\nBOOT\u2028"))

    await process(database, [[announced, *around([other])]])

    assert [reason for reason, _, _ in await dead_letters(database)] == ["operation_type_mismatch"]
    await assert_details_are_lines(database)


NONSENSE = {
    "bytes": lambda: b"\xff" * MEGABYTES,
    "nesting": lambda: b"[" * MEGABYTES,
    "objects": lambda: b'{"a":' * (MEGABYTES // 5),
    "digits": lambda: b"9" * MEGABYTES,
    "text": lambda: b'"' + b"a" * MEGABYTES + b'"',
    "a long state": lambda: encoded({**WELL, "state": "x" * MEGABYTES}),
    "a large state": lambda: encoded({**WELL, "state": None}).replace(b"null", b"1" * MEGABYTES),
    "a long service": lambda: encoded({**WELL, "service_id": "x" * MEGABYTES}),
    "no device": lambda: encoded({"operation_id": str(OPERATIONS[0]), "reason": "x" * MEGABYTES}),
}


@pytest.mark.parametrize("make_body", list(NONSENSE.values()), ids=list(NONSENSE))
async def test_eight_megabytes_of_nonsense_are_one_dead_letter(
    database: Database, make_body: Callable[[], bytes]
) -> None:
    bad = message(make_body())

    await process(database, [around([bad])])
    await process(database, [[bad]])

    await assert_the_good_ones_are_applied(database)
    await assert_details_are_lines(database)
    is_kept = await kept_body(database) == bad.body  # outside of assert: nobody wants to read the difference
    assert is_kept


@pytest.mark.parametrize("name", ["reason", "unknown", "report_id"])
async def test_a_report_of_eight_megabytes_is_applied(database: Database, name: str) -> None:
    """A limit must never lose a final state."""
    large = message(report_body(OPERATIONS[0], OTHER, "CREATED", **{name: "\0x" * (MEGABYTES // 2)}))

    tally = await process(database, [around([large])])
    again = await process(database, [[large]])

    await assert_the_good_ones_are_applied(database)
    assert (await read(database)).operations[OPERATIONS[0]].devices[OTHER].state == "CREATED"
    assert not tally.dead_lettered
    assert again.duplicate == 1
