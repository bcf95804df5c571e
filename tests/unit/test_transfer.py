"""Lines of an export that cannot be read."""

import pytest

from worker.dead_letters.export_import import read_line
from worker.errors import DeviceopsError


def test_a_line_that_cannot_be_read_is_refused_by_its_number() -> None:
    for line, wrong in (
        (b"{", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
    ):
        with pytest.raises(DeviceopsError, match=f"^line 7: {wrong}"):
            read_line(line, 7)
