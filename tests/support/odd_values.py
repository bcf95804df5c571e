"""What may stand where a value is expected: a list of JSON texts to try everywhere, and strategies for more."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.support import rules
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    REPORT,
    REPORTS,
    announcement_body,
    encoded,
    report_body,
)

GOOD, OTHER, THIRD = DEVICES
"""One device is reported well; whatever else is in the batch is about others of the same operation."""

WELL = report_body(OPERATIONS[0], OTHER, "PROCESSING")
REPORT_FIELDS = [*WELL, "operation_type", "reason", "code", "report_id", "occurred_at", "unknown"]
ANNOUNCEMENT_FIELDS = [
    *announcement_body(OPERATIONS[0]),
    "operation",
    "schedule_type",
    "schedule_args",
    "operation_device_query",
    "arguments",
    "reason",
    "created_at",
    "created_by",
    "device_ids",
    "device_count",
    "timeouts",
    "deadline",
    "abort",
    "unknown",
]
NESTED_FIELDS = {
    "timeouts": ["pending", "in_progress", "step", "total", "unknown"],
    "abort": ["failed_percent", "min_settled", "action", "unknown"],
}
"""The fields of an announcement's fields."""

TIMES = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-12:00",
    "2016-12-31T23:59:60Z",
    "2026-01-31T08:00:00.123456789Z",
    "2026-01-31T08:00:00",
    "2026-01-31",
    "1769846400",
    "0000-00-00T00:00:00Z",
]
TEXTS = ["", " ", "\0", "a\0b", "\ud800", "\udfff\ud800", "\n", "a\r\nb\u2028c\x85", "\U0001f680", "x" * 300]
IDS = [OTHER.hex, OTHER.urn, f"{{{OTHER}}}", f"\0{OTHER}", f" {OTHER}", str(OTHER)[:-1], f"{OTHER}0"]
NUMBERS = [
    0,
    -1,
    0.5,
    1,
    40,
    100,
    100.5,
    40.0,
    10.5,
    -0.0,
    2**31 - 1,
    2**31,
    2**63,
    2**64,
    10**400,
    -(10**400),
    1e308,
]
NESTS: list[object] = [
    [],
    {},
    [[]],
    [None],
    [10**400],
    {"": None},
    {"\0": "\0"},
    {"a": ["\ud800"]},
    [str(THIRD)] * 3,
]
DEPTHS = (10, 100, 200, 500, 100_000)
JSON = [
    *map(json.dumps, [None, True, False, "PROCESSING", *NUMBERS, *TEXTS, *TIMES, *IDS, *NESTS]),
    *("NaN", "Infinity", "-Infinity", "[NaN]", '{"a": {"b": [-Infinity]}}', "1e400", "-1e-400", '{"a": 1e400}'),
    *(
        json.dumps("x" * 5_000),
        "9" * 5_000,
        "-" + "9" * 5_000,
        "0." + "9" * 5_000,
        "1e999999999",
        '{"a": 1, "a": NaN}',
    ),
    *("[" * depth + "]" * depth for depth in DEPTHS),
    *('{"a":' * depth + "1" + "}" * depth for depth in DEPTHS),
    *("nul", "'CREATED'", "01", "+1", "0x0A", "[1,]", "/* */ null", '"\\x41"', '"\t"', '"\\ud800"'),
]
"""Valid JSON, what some take for JSON, and what nobody does."""

texts = st.one_of(
    st.text(),
    st.text(st.characters(exclude_categories=())),  # lone surrogates too
    st.sampled_from([*TEXTS, *TIMES]),
)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), texts),
        st.sampled_from([*NUMBERS, float("nan"), float("inf")]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
"""Any JSON value, and numbers that JSON has not."""

states = st.sampled_from([spelling for some in rules.SPELLINGS.values() for spelling in some])
reports = st.builds(
    lambda state, changed: {**report_body(OPERATIONS[0], OTHER, state), **changed},
    states,
    st.dictionaries(st.sampled_from(REPORT_FIELDS), values, max_size=2),
)
"""Reports with up to two fields changed to anything."""
announcements = st.builds(
    lambda changed: announcement_body(OPERATIONS[0], **changed),
    st.dictionaries(st.sampled_from(ANNOUNCEMENT_FIELDS), values, max_size=2),
)
"""Announcements with up to two fields changed to anything."""

bodies: st.SearchStrategy[bytes] = st.one_of(
    st.binary(),
    values.map(encoded),
    reports.map(encoded),
    announcements.map(encoded),
    (reports | announcements).map(
        lambda body: json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")
    ),
    st.lists(values | reports, max_size=4).map(lambda some: encoded({"reports": some})),
)
kinds = st.sampled_from([None, REPORT, REPORTS, ANNOUNCEMENT]) | st.text(
    st.characters(codec="utf-8", exclude_characters="\0")
)
