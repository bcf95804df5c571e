"""`deviceops contract`: it is AsyncAPI, its schemas take what the parser takes, and its examples are true."""

import json
import re
from typing import Any

import jsonschema_rs
import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine import SPELLINGS
from tests.support import odd_values
from tests.support.asyncapi import validate as validate_asyncapi
from tests.support.documents import blocks
from tests.support.sending import ANNOUNCEMENT, NOW, REPORT, REPORTS, encoded, message
from worker.amqp.topology import Topology
from worker.asyncapi import change_examples
from worker.asyncapi import document as asyncapi
from worker.asyncapi.change_examples import ChangeExample
from worker.asyncapi.examples import EXAMPLES, Example
from worker.model.changes import KINDS, ChangeKind
from worker.model.messages import Incoming, Rejected
from worker.model.parsing import parse
from worker.model.surrogates import whole

DOCUMENT = asyncapi.asyncapi(Topology("device-operations"), ["broker.example"], "amqps")
VALIDATORS = {
    type_: jsonschema_rs.Draft202012Validator(asyncapi.json_schema(type_))
    for type_ in (REPORT, REPORTS, ANNOUNCEMENT)
}
UNSAID = (
    "Out of range float values are not JSON compliant",
    "recursion limit exceeded",
)
"""What the parser says of that which the contract says no schema can say."""


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_each_example_is_in_the_document_and_its_schema_takes_it(example: Example) -> None:
    [stated] = [
        (type_, shown)
        for one in DOCUMENT["components"]["messages"].values()
        for type_ in [one["bindings"]["amqp"]["messageType"]]
        for shown in one["examples"]
        if shown["name"] == example.name
    ]
    assert stated == (example.type, {"name": example.name, "summary": example.summary, "payload": example.body})
    VALIDATORS[example.type].validate(example.body)
    jsonschema_rs.Draft202012Validator({**payload_schema(example.type), **DOCUMENT}).validate(example.body)


@pytest.mark.parametrize("example", change_examples.EXAMPLES, ids=[e.name for e in change_examples.EXAMPLES])
def test_each_example_of_a_change_is_in_the_document_and_its_schema_takes_it(example: ChangeExample) -> None:
    body = json.loads(json.dumps(example.body))
    [stated] = [
        (type_, shown)
        for one in DOCUMENT["components"]["messages"].values()
        for type_ in [one["bindings"]["amqp"]["messageType"]]
        for shown in one["examples"]
        if shown["name"] == example.name
    ]
    assert stated == (example.type, {"name": example.name, "summary": example.summary, "payload": example.body})
    jsonschema_rs.Draft202012Validator(asyncapi.json_schema(example.type)).validate(body)
    jsonschema_rs.Draft202012Validator({**payload_schema(example.type), **DOCUMENT}).validate(body)


def test_each_type_of_change_has_examples_and_is_sent_to_the_exchange_of_changes() -> None:
    assert {example.type for example in change_examples.EXAMPLES} == KINDS.keys()
    sent = [each for each in DOCUMENT["operations"].values() if each["action"] == "send"]
    channels = [DOCUMENT["channels"][each["channel"]["$ref"].rpartition("/")[2]] for each in sent]
    assert [each["address"] for each in channels] == [kind.routing_key for kind in KINDS.values()]
    names = [each["bindings"]["amqp"]["exchange"]["name"] for each in channels]
    assert names == ["device-operations.changes"] * len(KINDS)
    for each in channels:
        assert {f"{{{name}}}" for name in each["parameters"]} == set(re.findall(r"{\w+}", each["address"]))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_schema_of_a_change_requires_its_fields_and_allows_those_to_come(kind: ChangeKind) -> None:
    validator = jsonschema_rs.Draft202012Validator(asyncapi.json_schema(kind.name))
    example = next(example for example in change_examples.EXAMPLES if example.type == kind.name)
    body = json.loads(json.dumps(example.body))
    for name, field in kind.body.model_fields.items():
        without = {key: value for key, value in body.items() if key != name}
        assert validator.is_valid(without) is not field.is_required(), name
        assert not validator.is_valid({**body, name: {"no": "such value"}}), name
    assert validator.is_valid({**body, "to_come": 1})


def test_the_page_for_producers_shows_a_report_of_the_examples_and_an_announcement_that_the_schema_takes() -> None:
    report, *announcements = (json.loads(block.text) for block in blocks("deploy/producers.md", "json"))
    assert report in [example.body for example in EXAMPLES]
    [with_timeouts] = (json.loads(block.text) for block in blocks("deploy/timeouts.md", "json"))
    for announcement in (*announcements, with_timeouts):
        VALIDATORS[ANNOUNCEMENT].validate(announcement)


def payload_schema(type_: str) -> dict[str, Any]:
    """The reference to a type's schema, which is one within the document."""
    [payload] = [
        one["payload"]
        for one in DOCUMENT["components"]["messages"].values()
        if one["bindings"]["amqp"]["messageType"] == type_
    ]
    assert list(payload) == ["$ref"]
    return dict(payload)


def test_what_is_no_asyncapi_is_noticed() -> None:
    for spoilt in (
        {**DOCUMENT, "asyncapi": "2.0.0"},
        {**DOCUMENT, "servers": {"broker": {"host": "broker.example"}}},
        {**DOCUMENT, "operations": {"send": {"action": "publish", "channel": {"$ref": "#/channels/queue"}}}},
        {**DOCUMENT, "typo": {}},
    ):
        with pytest.raises(jsonschema_rs.ValidationError):
            validate_asyncapi(spoilt)


def test_the_schema_names_every_spelling_of_a_state() -> None:
    assert DOCUMENT["components"]["schemas"]["Report"]["properties"]["state"]["enum"] == [*SPELLINGS]


def assert_agreement(body: bytes, type_: str) -> None:
    """The parser and the schema say the same of a body, but for what no schema can say."""
    rejected = [item for item in parse(message(body, type_)) if isinstance(item, Rejected)]
    try:
        document = pydantic_core.from_json(whole(body), allow_inf_nan=False)
    except ValueError:
        # Not JSON. In a field that nobody reads, what Python writes for what is no number does no harm.
        assert rejected or b"NaN" in body or b"Infinity" in body, body
        return
    is_valid = VALIDATORS[type_].is_valid(document)
    if is_valid and rejected:
        assert all(any(words in item.detail for words in UNSAID) for item in rejected), rejected[0].detail
    else:
        assert is_valid == (not rejected), (body[:300], [item.detail for item in rejected])


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.name in ("report", "announcement", "bulk")])
def test_schema_and_parser_agree_on_every_odd_value_in_every_field(example: Example) -> None:
    mark = "the value goes here"
    fields = odd_values.ANNOUNCEMENT_FIELDS if example.type == ANNOUNCEMENT else odd_values.REPORT_FIELDS
    for field in fields:
        if example.type == REPORTS:
            body: object = {"reports": [{**example.body["reports"][0], field: mark}]}
        else:
            body = {**example.body, field: mark}
        template = json.dumps(body)
        for value in odd_values.JSON:
            assert_agreement(template.replace(json.dumps(mark), value).encode(), example.type)


@pytest.mark.parametrize("name", odd_values.NESTED_FIELDS)
def test_schema_and_parser_agree_on_every_odd_value_within_timeouts_and_abort(name: str) -> None:
    mark = "the value goes here"
    [example] = [example for example in EXAMPLES if example.name == "announcement"]
    for field in odd_values.NESTED_FIELDS[name]:
        template = json.dumps({**example.body, name: {**example.body[name], field: mark}})
        for value in odd_values.JSON:
            assert_agreement(template.replace(json.dumps(mark), value).encode(), ANNOUNCEMENT)


ID = "497f6eca-6276-4993-bfeb-53cbbbba6f08"
SPELLINGS_OF_ID = [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"]
NO_IDS = [f"URN:UUID:{ID}", f"{{{ID.replace('-', '')}}}", f"{ID}\n", f"({ID})", ID[:-1], f"{ID[:-1]}g", ""]
TIMES = [
    *("2026-02-28T08:00:00Z", "2016-12-31T23:59:60Z", "2016-12-31T18:59:60.5-05:00"),
    *("2026-01-31t08:00z", "2026-01-31 08:00:00+0100", "2026-01-31 08:00:00-01:00"),
    *("2026-01-31T08:00:00\N{MINUS SIGN}01:00", "2026-01-31T08:00:00,5Z", "2026-01-31T08:00:00.1234567890123Z"),
]
NO_TIMES = [
    *("2026-01-31T08:00:00", "2026-01-31", "20260131T080000Z", "2026-01-31T080000Z", "2026-01-31_08:00:00Z"),
    *(
        "2026-01-31T24:00:00Z",
        "2026-01-31T08:60Z",
        "2026-13-31T08:00:00Z",
        "2026-01-32T08:00Z",
    ),
    *("2026-01-31T08:00:00+01", "2026-01-31T08:00:00+24:00", "2026-01-31T08:00:00.Z", " 2026-01-31T08:00:00Z", ""),
]


def test_schema_and_parser_take_every_spelling_of_an_id_and_refuse_the_rest() -> None:
    [report] = [example for example in EXAMPLES if example.name == "report"]
    for value in [*SPELLINGS_OF_ID, *NO_IDS]:
        body = {**report.body, "device_id": value}
        is_taken = value in SPELLINGS_OF_ID
        assert [isinstance(item, Rejected) for item in parse(message(body, REPORT))] == [not is_taken], value
        assert VALIDATORS[REPORT].is_valid(body) == is_taken, value


def test_every_spelling_of_a_time_is_read_as_its_schema_has_it_and_any_other_value_is_left_out() -> None:
    [report] = [example for example in EXAMPLES if example.name == "report"]
    schema = asyncapi.json_schema(REPORT)["$defs"]["Report"]["properties"]["occurred_at"]
    understood = jsonschema_rs.Draft202012Validator(schema["anyOf"][0])
    for value in [*TIMES, *NO_TIMES]:
        body = {**report.body, "occurred_at": value}
        is_read = value in TIMES
        [item] = parse(message(body, REPORT))
        assert isinstance(item, Incoming)
        assert (item.note is None) == is_read, value
        assert item.at == NOW or is_read, value
        assert understood.is_valid(value) == is_read, value
        VALIDATORS[REPORT].validate(body)


def edited(text: str) -> st.SearchStrategy[str]:
    """A text with a piece of it taken out, and something put in its place."""
    piece = st.sampled_from(
        ["", *"0159TtZz +-:.,{}_\n", "\N{MINUS SIGN}", "\N{ARABIC-INDIC DIGIT FIVE}", "urn:uuid:"]
    )
    place = st.integers(0, len(text))
    return st.builds(
        lambda start, length, put: text[:start] + put + text[start + length :], place, st.integers(0, 3), piece
    )


OF_ONE = [example for example in EXAMPLES if example.type != REPORTS]
near_misses = st.sampled_from([*SPELLINGS_OF_ID, *TIMES, "2024-02-29 00:00+0100", *SPELLINGS, 7]).flatmap(
    lambda value: edited(value) if isinstance(value, str) else st.just(value)
)


@given(data=st.data())
def test_schema_and_parser_agree_on_documents_that_are_almost_right(data: st.DataObject) -> None:
    example = data.draw(st.sampled_from(OF_ONE))
    fields = odd_values.ANNOUNCEMENT_FIELDS if example.type == ANNOUNCEMENT else odd_values.REPORT_FIELDS
    changes = st.dictionaries(st.sampled_from(fields), near_misses | odd_values.values, max_size=2)
    body = {**example.body, **data.draw(changes)}
    for name, names in odd_values.NESTED_FIELDS.items() if example.type == ANNOUNCEMENT else ():
        if isinstance(before := body.get(name), dict):
            body[name] = before | data.draw(st.dictionaries(st.sampled_from(names), odd_values.values, max_size=1))
    for field in data.draw(st.sets(st.sampled_from(fields), max_size=1)):
        body.pop(field, None)
    assert_agreement(encoded(body), example.type)
    if example.type == REPORT:
        assert_agreement(encoded({"reports": [body]}), REPORTS)


@given(body=odd_values.bodies, type_=st.sampled_from([REPORT, REPORTS, ANNOUNCEMENT]))
def test_schema_and_parser_agree_on_anything(body: bytes, type_: str) -> None:
    assert_agreement(body, type_)
