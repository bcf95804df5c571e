"""What the page of operations shows of one, and what it has to show by the rows of the database."""

from collections import Counter
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import make_url

from tests.support.browsing.browser import Browser
from tests.support.databases import in_a_thread, read
from worker.store.database import Database

PARTS = {
    "SUCCESS": "good",
    "COMPLETED": "good",
    "FAILURE": "failed",
    "TIMEOUT": "timed-out",
    "CANCELLED": "cancelled",
}
"""The part of the bar in which a device operation of a settled state is."""
ROW = """
const link = document.getElementById('operation-' + arguments[0]);
if (!link) return null;
const row = link.closest('tr'), value = each => Number(each.querySelector('data').value);
const [settled, total] = [...row.querySelectorAll('[data-label=Devices] data')].map(each => Number(each.value));
return {
    state: row.querySelector('.state').textContent,
    parts: [...row.querySelectorAll('.parts span[class]:not(.dim)')].map(each => [each.className, value(each)]),
    widths: [...row.querySelectorAll('svg rect:not(.rail)')]
        .map(each => [each.getAttribute('class'), Number(each.getAttribute('width'))]),
    settled, total,
};
"""


class Shown(NamedTuple):
    """An operation on the page of operations."""

    state: str
    parts: dict[str, int]
    """The number in each coloured part, but for the open one, that has any."""
    settled: int
    total: int

    @classmethod
    def on(cls, browser: Browser, operation: UUID) -> "Shown | None":
        """What the page shows now, None without the operation. Fails if the bar disagrees with the numbers."""
        found = browser.run(ROW, str(operation))
        if found is None:
            return None
        shown = cls(found["state"], dict(found["parts"]), found["settled"], found["total"])
        assert sum(shown.parts.values()) == shown.settled <= shown.total, shown
        widths = dict(found["widths"])
        is_open = {"open"} if shown.settled < shown.total else set()
        assert widths.keys() == shown.parts.keys() | is_open, found
        assert not widths or sum(widths.values()) == 1_000, found
        return shown

    @classmethod
    def of(cls, database_url: str, operation: UUID) -> "Shown":
        """What the page has to show, counted from the rows of the device operations."""

        async def stored() -> Shown:
            database = Database(make_url(database_url))
            found = (await read(database)).operations[operation]
            await database.close()
            parts = Counter(PARTS[each.state] for each in found.devices.values() if each.state in PARTS)
            total = max(len(found.devices), found.expected or 0)
            return cls(found.state, dict(parts), parts.total(), total)

        return in_a_thread(stored())
