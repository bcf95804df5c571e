"""Dead letters: summaries by reason, detail, service and operation, and the list; notes on groups."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api.filters import LARGEST_ID
from worker.api.responses import ApiError
from worker.config.api_tokens import Scope
from worker.dead_letters.replay import Summary, preview
from worker.model.outcomes import Reason, Status
from worker.model.text import clean, counted
from worker.pages import audit, live
from worker.pages.access import LONGEST_ADDRESS, pages_of
from worker.pages.dead_letter_filters import Chosen, ChosenLetters, group_of, in_words, query_of
from worker.pages.dead_letter_outcomes import Prediction, predictions
from worker.pages.lists import Links
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.store import dead_letter_groups, dead_letter_notes, documents
from worker.store import dead_letters as letters
from worker.store.dead_letters import GroupBy
from worker.store.selection import Selection

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PATH, ROWS = "/dead-letters", "/dead-letters/rows"
TOPICS = (live.DEAD_LETTERS,)
LIMIT = 50
"""Dead letters of a page."""
GROUPS = 10
"""Groups of a summary."""
COUNTED = 100_000
"""Dead letters that are counted at most: it bounds the time."""
GROUPED = 25_000
"""Dead letters that are grouped at most, the newest ones: it takes five to ten times as long as counting them."""

Admin = Annotated[Page, may(Scope.ADMIN_DEAD_LETTERS)]
_Id = Annotated[int | None, Query(ge=1, le=LARGEST_ID)]

MEANINGS: Mapping[Reason, str] = {
    Reason.MALFORMED: "cannot be read: correct the message, or discard it",
    Reason.CONFLICT: "contradicts the state that was reported before",
    Reason.UNKNOWN_DEVICE_OPERATION: "parked: processed by itself once the device operation is registered",
    Reason.OPERATION_TYPE_MISMATCH: "names another type than the operation has",
    Reason.UNKNOWN_SERVICE: "its sender may not report",
    Reason.NOT_ALLOWED: "its sender may not report this",
    Reason.UNDELIVERABLE: "given up by the broker",
}
"""What a reason means, in a few words."""


class Group(NamedTuple):
    """A row of a summary."""

    name: str | None
    """None for those that have no such value."""
    address: str | None
    """Of its list; None if no filter selects it."""
    number: int
    oldest: Any
    newest: Any
    reason: Reason | None = None
    note: dead_letter_notes.Note | None = None


@router.get(PATH, response_class=HTMLResponse)
async def show_dead_letters(page: Admin, chosen: ChosenLetters, before: _Id = None, after: _Id = None) -> Response:
    """The dead letters that match the filters in the address, by group and one by one."""
    return await whole(page, chosen, before, after)


@router.get(ROWS, response_class=HTMLResponse)
async def show_rows(page: Admin, chosen: ChosenLetters, before: _Id = None, after: _Id = None) -> HTMLResponse:
    """The summaries and the rows alone, at the same query, for the page that is open."""
    chosen.must_be(Status.OPEN)

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _values(connection, page.request, chosen.selection, before, after)

    return await page.fragment("dead_letters_rows.html", make, topics=TOPICS)


async def whole(
    page: Page,
    chosen: Chosen,
    before: int | None = None,
    after: int | None = None,
    note: tuple[str, str] = ("", ""),
) -> HTMLResponse:
    """The whole page; `note` is a note that was typed, and what is wrong with it."""
    form = {
        "fields": chosen.fields,
        "reasons": list(Reason),
        "statuses": [*Status, "all"],
        "note_text": note[0],
        "note_fault": note[1],
        "longest_note": dead_letter_notes.MAX_LENGTH,
    }

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        if chosen.has_faults:
            return {**form, "has_faults": True}
        notes = await dead_letter_notes.of(connection, group_of(chosen.selection))
        found = await _values(connection, page.request, chosen.selection, before, after)
        return {**form, "has_faults": False, "notes": notes, **found}

    status = HTTPStatus.BAD_REQUEST if chosen.has_faults or note[1] else HTTPStatus.OK
    topics = () if chosen.has_faults else TOPICS
    return await page.whole("dead_letters.html", make, topics=topics, status=status)


async def _values(
    connection: AsyncConnection, request: Request, selection: Selection, before: int | None, after: int | None
) -> Mapping[str, Any]:
    query = query_of(selection)
    rows = await letters.page_by_id(connection, selection, LIMIT + 1, before=before, after=after)
    return {
        "filter_query": query,
        "rows_query": "&".join(filter(None, (query, _cursor(before=before, after=after)))),
        "selection": selection,
        "filter_words": in_words(selection),
        "is_filtered": not selection.is_everything,
        "count": await letters.count(connection, selection, COUNTED),
        "counted_at_most": COUNTED,
        "grouped_at_most": GROUPED,
        "longest_part": LONGEST_ADDRESS,
        "summaries": await _summaries(connection, selection),
        "meanings": MEANINGS,
        "rows": rows[:LIMIT] if after is None else rows[-LIMIT:],
        "links": _links(query, rows, before, after),
        "running": pages_of(request).jobs.running(),
        "ended": [job for job in pages_of(request).jobs.latest(5) if job.state.is_over],
    }


def _links(
    query: str, rows: Sequence[documents.DeadLetterSummary], before: int | None, after: int | None
) -> Links:
    """Links to the adjacent pages; one row more than a page has says that there is another one."""

    def link(**cursor: int) -> str:
        return address("&".join(filter(None, (query, _cursor(**cursor)))))

    has_more = len(rows) > LIMIT
    first = None if before is None and after is None else address(query)
    if not rows:
        return Links(None, None, first)
    shown = rows[-LIMIT:] if after is not None else rows[:LIMIT]
    has_newer = has_more if after is not None else before is not None
    has_older = has_more if after is None else True
    return Links(
        link(after=shown[0].id) if has_newer else None, link(before=shown[-1].id) if has_older else None, first
    )


def _cursor(**cursor: int | None) -> str:
    return urlencode({name: value for name, value in cursor.items() if value is not None})


def address(query: str, path: str = PATH) -> str:
    """The address of a page about the dead letters of a query string."""
    return f"{path}?{query}" if query else path


async def _summaries(connection: AsyncConnection, selection: Selection) -> Mapping[str, Sequence[Group]]:
    """Groups by kind, the largest first."""
    found: dict[str, Sequence[Group]] = {"detail": await _by_detail(connection, selection)}
    for by in (GroupBy.REASON, GroupBy.SERVICE, GroupBy.OPERATION):
        groups = await letters.count_by(connection, selection, by, GROUPS, GROUPED)
        found[by.value] = [_group(selection, each) for each in groups]
    return found


def _group(selection: Selection, group: documents.Group) -> Group:
    value, reason = group.value, Reason(str(group.value)) if group.kind == "reason" else None
    is_filter = value is not None and 0 < len(str(value)) <= _LONGEST
    changed: dict[str, Any] = {group.kind: reason or value}  # the columns are named as the filters are
    link = address(query_of(replace(selection, **changed))) if is_filter else None
    return Group(None if value is None else str(value), link, group.count, group.oldest, group.newest, reason)


_LONGEST = 255
"""Characters of a filter."""


async def _by_detail(connection: AsyncConnection, selection: Selection) -> Sequence[Group]:
    groups = await dead_letter_groups.by_detail(connection, selection, GROUPS, GROUPED)
    keys = {each: group_of(Selection(reason=each.reason, detail=each.detail)) for each in groups}
    notes = await dead_letter_notes.latest_of(connection, set(keys.values()))
    return [
        Group(
            each.detail,
            address(query_of(replace(selection, reason=each.reason, detail=each.detail)))
            if each.is_filter
            else None,
            each.number,
            each.oldest,
            each.newest,
            each.reason,
            notes.get(key),
        )
        for each, key in keys.items()
    ]


@router.post(f"{PATH}/notes", response_class=HTMLResponse)
async def add_note(page: Admin, chosen: ChosenLetters, text: Annotated[str, Form()] = "") -> Response:
    """Add a note to the group of a filter."""
    group = group_of(chosen.must_be(Status.OPEN))
    if fault := _fault_of(text) or _fault_of_group(group):
        return await whole(page, chosen, note=(text, fault))
    note = clean(text.strip()).replace("\r\n", "\n")
    async with page.shared.writing.write(is_counted=False) as connection:
        id_ = await dead_letter_notes.add(connection, group, page.caller.name, note)
        await audit.record(connection, page.request, "dead-letters.note", group, {"note": id_})
    page.live.publish(live.DEAD_LETTERS)
    return await page.go(address(query_of(chosen.selection)), "The note was added.")


def _fault_of_group(group: str) -> str:
    is_long = len(group.encode()) > dead_letter_notes.MAX_FILTER
    return "This filter is too long for a note: note it on one of the groups above." if is_long else ""


def _fault_of(text: str) -> str:
    if not text.strip():
        return "Write a note."
    longest = dead_letter_notes.MAX_LENGTH
    return "" if len(text) <= longest else f"A note has at most {counted(longest, 'character')}."


@router.post(f"{PATH}/notes/{{note_id:id}}/remove", response_class=HTMLResponse)
async def remove_note(page: Admin, note_id: Annotated[int, Path(ge=1, le=LARGEST_ID)]) -> Response:
    """Remove a note; the audit log keeps its text."""
    async with page.shared.writing.write(is_counted=False) as connection:
        removed = await dead_letter_notes.remove(connection, note_id)
        if removed is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "There is no such note; it may have been removed already.")
        detail = {"note": note_id, "who": removed.who, "text": removed.text}
        await audit.record(connection, page.request, "dead-letters.remove-note", removed.filter, detail)
    page.live.publish(live.DEAD_LETTERS)
    return await page.go(address(removed.filter), "The note was removed.")


async def predict(page: Page, ids: Sequence[int]) -> tuple[Summary, Sequence[Prediction]]:
    """What a replay of dead letters would do now; as many at a time as pages may read."""
    async with pages_of(page.request).readers:
        summary, outcomes = await preview(page.shared.database, Selection(ids), reporters=page.shared.reporters)
    return summary, predictions(outcomes)
