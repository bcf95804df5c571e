"""Cursors: each is read as it was written, and no other text is one."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.store.pagination import Cursor, Position


@given(
    st.integers(0, 8),
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
    st.booleans(),
)
def test_a_cursor_reads_what_it_writes(rank: int, time: datetime, id_: UUID, backwards: bool) -> None:
    cursor = Cursor(Position(rank, time, id_), backwards)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.from_regex(r"^(after|before)\.[0-9]{1,2}\.[0-9]{1,18}\.[0-9a-f]{32}$", fullmatch=True))
def test_every_text_of_a_cursors_form_is_a_place(written: str) -> None:
    assert Cursor.parse(written).position is not None


@pytest.mark.parametrize(
    "written", ["after", "after.1.2.3", "next.1.2." + "0" * 32, "after.1.2." + "0" * 32 + "\n"]
)
def test_a_text_of_another_form_is_no_cursor(written: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Cursor.parse(written)
