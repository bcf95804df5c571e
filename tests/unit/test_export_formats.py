"""Which format a request for a list prefers, by its header Accept (RFC 9110, section 12.5.1)."""

import pytest

from worker.api.export import accepted_format
from worker.store.export_lines import Format


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "text/html,application/xhtml+xml,*/*;q=0.8",
        "text/*",
        "application/json, text/csv",
        "text/csv;q=0.5, application/json",
        "text/csv;q=0",
        "text/csv;q=x",
        "text/csv;q=nan",
        ";;,,q=1",
    ],
)
def test_a_page_is_what_is_sent_by_default(accept: str) -> None:
    assert accepted_format(accept) is None


@pytest.mark.parametrize(
    ("accept", "format_"),
    [
        ("text/csv", Format.CSV),
        ("TEXT/CSV; charset=utf-8", Format.CSV),
        ("application/x-ndjson", Format.JSONL),
        ("text/csv, */*", Format.CSV),
        ("*/*, text/csv", Format.CSV),
        ("application/json;q=0.5, text/csv;q=0.6", Format.CSV),
        ("text/csv;q=0.5, application/x-ndjson", Format.JSONL),
        ("text/csv, application/json", Format.CSV),
    ],
)
def test_an_export_is_sent_where_it_is_preferred(accept: str, format_: Format) -> None:
    assert accepted_format(accept) is format_
