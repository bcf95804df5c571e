"""JSON lines: what is an envelope and what is not."""

import json
from typing import Any

import pytest

from tests.support.brokering import report
from worker.jsonl import as_message

NO_ENVELOPES = [
    json.dumps({**report(), "body": {"battery": 80}}),
    json.dumps({"body": {"battery": 80}, "state": None}),
    '{"operation_id": "x", "body": "y"}',
    '{"boby": {"battery": 80}, "note": "body"}',
    '{"body": {"battery": 80}, "properties": {"priority": 1}}',
    '{"body": {}, "message_id": 7}',
    '{"body": {}, "headers": []}',
    '[{"body": {}}]',
    '"body"',
    '  {"a": 1.0, "a": 1e2, "body" : "\\u00e9"}\t',
]


@pytest.mark.parametrize("line", NO_ENVELOPES)
def test_what_is_no_envelope_is_the_message_as_it_stands(line: str) -> None:
    found = as_message(line.encode())

    assert (found.body, found.message_id, found.type, dict(found.origin().headers)) == (
        line.encode(),
        None,
        None,
        {},
    )


ENVELOPES: list[tuple[dict[str, Any], tuple[bytes, str | None, str | None, dict[str, Any]]]] = [
    ({"body": {"a": 1}}, (b'{"a":1}', None, None, {})),
    ({"body": None}, (b"null", None, None, {})),
    ({"body": "no JSON"}, (b"no JSON", None, None, {})),
    ({"body": [], "type": "t", "message_id": "m", "headers": {"h": 1}}, (b"[]", "m", "t", {"h": 1})),
    ({"body": 1, "type": None, "message_id": None, "headers": None}, (b"1", None, None, {})),
    ({"body": {"a": float("nan")}}, (b'{"a":NaN}', None, None, {})),
]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(("envelope", "expected"), ENVELOPES)
def test_an_envelope_has_a_body_and_nothing_but_what_goes_with_one(
    envelope: dict[str, Any], expected: tuple[object, ...], mark: str
) -> None:
    found = as_message((mark + json.dumps(envelope)).encode())

    assert (found.body, found.message_id, found.type, dict(found.origin().headers)) == expected
