"""One dead letter: what came, why it was rejected, what was done; and what can be done with it."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api.filters import LARGEST_ID
from worker.api.responses import ApiError
from worker.dead_letters.correct import correct, get_open
from worker.dead_letters.discard import discard, restore
from worker.dead_letters.replay import Summary, replay
from worker.errors import DeviceopsError
from worker.model.contract import MAX_REASON
from worker.model.outcomes import Status
from worker.model.text import clean
from worker.model.unwrapping import as_far_as_readable
from worker.pages import audit, live
from worker.pages import dead_letter_bodies as bodies
from worker.pages.dead_letter_faults import fault_of
from worker.pages.dead_letter_filters import group_of
from worker.pages.dead_letter_outcomes import in_words
from worker.pages.dead_letters import PATH, TOPICS, Admin, address, predict
from worker.pages.page import Page
from worker.pages.routing import PageRoute
from worker.store import dead_letter_groups, dead_letter_notes, documents
from worker.store import dead_letters as letters
from worker.store.dead_letters import stored_message
from worker.store.queries import get_operation
from worker.store.selection import Selection

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_ONE = f"{PATH}/{{id_:id}}"
Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get(_ONE, response_class=HTMLResponse)
async def show_dead_letter(page: Admin, id_: Id) -> Response:
    """All that is known of a dead letter."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _values(connection, id_)

    return await page.whole("dead_letter.html", make, topics=TOPICS)


@router.get(f"{_ONE}/facts", response_class=HTMLResponse)
async def show_facts(page: Admin, id_: Id) -> HTMLResponse:
    """The same as a part of the page that is open."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _values(connection, id_)

    return await page.fragment("dead_letter_facts.html", make, topics=TOPICS)


async def _values(connection: AsyncConnection, id_: int) -> Mapping[str, Any]:
    letter = await _found(connection, id_)
    group = group_of(Selection(reason=letter.reason, detail=dead_letter_groups.grouped_as(letter.detail)))
    operation = letter.operation_id and await get_operation(connection, letter.operation_id)
    return {
        "letter": letter,
        "group": address(group),
        "notes": await dead_letter_notes.of(connection, group),
        "has_operation": operation is not None,
        "body": await asyncio.to_thread(bodies.shown_body, letter),
        "shown_characters": bodies.SHOWN,
        "properties": bodies.shown_table(letter.properties),
        "headers": bodies.shown_table(letter.headers),
        "most_entries": documents.LATEST_ENTRIES,
    }


async def _found(connection: AsyncConnection, id_: int) -> documents.DeadLetterDetails:
    letter = await letters.get(connection, id_)
    if letter is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"Dead letter {id_} does not exist, or was removed by retention.")
    return letter


@router.get(f"{_ONE}/body")
async def download_body(page: Admin, id_: Id) -> Response:
    """The body's bytes as they were received."""
    async with page.reading() as connection:
        letter = await _found(connection, id_)
    body = await asyncio.to_thread(bodies.shown_body, letter)
    name = f"dead-letter-{id_}.{'json' if body.kind == 'JSON' else 'bin'}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(letter.body, media_type="application/octet-stream", headers=headers)


@router.get(f"{_ONE}/dry-run", response_class=HTMLResponse)
async def show_dry_run(page: Admin, id_: Id) -> Response:
    """What a replay of it would do now."""
    async with page.reading() as connection:
        status = (await _found(connection, id_)).status
    if status is not Status.OPEN:
        return await page.go(_address(id_), f"Dead letter {id_} is {status}: only an open one can be replayed.")
    summary, found = await predict(page, [id_])
    values = {"id_": id_, "outcome": in_words(summary), "found": found}

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return {**values, "letter": await _found(connection, id_)}

    return await page.whole("dead_letter_dry_run.html", make)


@router.post(f"{_ONE}/replay", response_class=HTMLResponse)
async def replay_one(page: Admin, id_: Id) -> Response:
    """Process it again."""
    shared = page.shared
    await _require(page, id_)
    async with audit.acting(shared, page.request, "dead-letter.replay", str(id_), {}) as outcome:
        summary = await replay(
            shared.writing, Selection([id_]), actor=page.caller.name, reporters=shared.reporters
        )
        outcome["outcome"] = _done(page, summary, id_)
    return await page.go(_address(id_), outcome["outcome"], is_error=_is_bad(summary))


@router.get(f"{_ONE}/discard", response_class=HTMLResponse)
async def ask_to_discard(page: Admin, id_: Id) -> Response:
    """The form with the reason."""
    return await _discard_form(page, id_)


@router.post(f"{_ONE}/discard", response_class=HTMLResponse)
async def discard_one(page: Admin, id_: Id, because: Annotated[str, Form()] = "") -> Response:
    """Discard it, with a reason."""
    if fault := fault_of_reason(because):
        return await _discard_form(page, id_, because, fault)
    await _require(page, id_)
    because = clean(because.strip())
    detail = {"because": because}
    async with audit.acting(page.shared, page.request, "dead-letter.discard", str(id_), detail) as outcome:
        number = await discard(page.shared.writing, Selection([id_]), because, actor=page.caller.name)
        outcome["outcome"] = "discarded" if number else "it was not open any more"
    page.live.publish(live.DEAD_LETTERS)
    return await page.go(_address(id_), f"Dead letter {id_}: {outcome['outcome']}.", is_error=not number)


async def _discard_form(page: Page, id_: int, because: str = "", fault: str = "") -> HTMLResponse:
    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        letter = await _found(connection, id_)
        return {"letter": letter, "because": because, "fault": fault, "longest": MAX_REASON}

    status = HTTPStatus.BAD_REQUEST if fault else HTTPStatus.OK
    return await page.whole("dead_letter_discard.html", make, status=status)


def fault_of_reason(because: str) -> str:
    """What is wrong with the reason of a discard; empty if nothing is."""
    if not because.strip():
        return "Say why: the reason is kept with each."
    return "" if len(because) <= MAX_REASON else f"A reason has at most {MAX_REASON:,} characters."


@router.post(f"{_ONE}/restore", response_class=HTMLResponse)
async def restore_one(page: Admin, id_: Id) -> Response:
    """Make it open again after a discard."""
    shared = page.shared
    await _require(page, id_)
    async with audit.acting(shared, page.request, "dead-letter.restore", str(id_), {}) as outcome:
        number = await restore(
            shared.writing,
            Selection([id_], status=Status.DISCARDED),
            actor=page.caller.name,
            reporters=shared.reporters,
        )
        outcome["outcome"] = "restored" if number else "not restored: it is not discarded, or has no body any more"
    page.live.publish(live.DEAD_LETTERS)
    return await page.go(_address(id_), f"Dead letter {id_}: {outcome['outcome']}.", is_error=not number)


@router.get(f"{_ONE}/edit", response_class=HTMLResponse)
async def edit(page: Admin, id_: Id) -> Response:
    """The form with the body as text."""
    async with page.reading() as connection:
        letter = await _found(connection, id_)
    if refused := await asyncio.to_thread(_not_editable, letter):
        return await page.go(_address(id_), refused, is_error=True)
    present = as_far_as_readable(stored_message(await get_open(page.shared.database, id_)))
    return await _edit_form(page, id_, bodies.editable(present.body) or "", present.type or "")


def _not_editable(letter: documents.DeadLetterDetails) -> str:
    if letter.status is not Status.OPEN:
        return f"Dead letter {letter.id} is {letter.status}: only an open one can be corrected."
    if not bodies.shown_body(letter).is_editable:
        return f"The body is too large to be edited here: `deviceops dead-letters edit {letter.id}` does it."
    return ""


@router.post(f"{_ONE}/edit", response_class=HTMLResponse)
async def correct_one(
    page: Admin, id_: Id, body: Annotated[str, Form()] = "", type_: Annotated[str, Form(alias="type")] = ""
) -> Response:
    """Replace it by a corrected copy, and process that."""
    shared, text, type_ = page.shared, bodies.line_ends(body), type_.strip()
    await _require(page, id_)
    try:
        row = await get_open(shared.database, id_)
        present = as_far_as_readable(stored_message(row))
        if text == bodies.editable(present.body) and type_ == (present.type or ""):
            return await _edit_form(page, id_, text, type_, "nothing was changed")
        async with audit.acting(shared, page.request, "dead-letter.edit", str(id_), {}) as outcome:
            copy, summary = await correct(
                shared.writing,
                row,
                text.encode(),
                clean(type_) or None,
                actor=page.caller.name,
                reporters=shared.reporters,
            )
            outcome |= {"outcome": in_words(summary), "copy": copy}
    except DeviceopsError as error:
        return await _edit_form(page, id_, text, type_, str(error))
    message = f"Dead letter {id_} is replaced by this one. {_done(page, summary, copy)}"
    return await page.go(_address(copy), message, is_error=_is_bad(summary))


async def _edit_form(page: Page, id_: int, text: str, type_: str, fault: str = "") -> HTMLResponse:
    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        letter = await _found(connection, id_)
        shown = fault_of(fault, text) if fault else None
        return {"letter": letter, "text": text, "type": type_, "fault": shown}

    status = HTTPStatus.BAD_REQUEST if fault else HTTPStatus.OK
    return await page.whole("dead_letter_edit.html", make, status=status)


async def _require(page: Page, id_: int) -> None:
    """Require that a dead letter exists, before an act is recorded. Raises ApiError (404)."""
    async with page.reading() as connection:
        if not await letters.ids_of(connection, Selection([id_], status=None)):
            await _found(connection, id_)


def _done(page: Page, summary: Summary, id_: int) -> str:
    """Tell other pages and the metrics of a replay; returns what came of it."""
    page.shared.note(summary.tally)
    page.live.publish(live.DEAD_LETTERS)
    if not summary.selected:
        return f"Dead letter {id_} was not open any more; nothing was done."
    return f"Dead letter {id_} was processed: {in_words(summary)}."


def _is_bad(summary: Summary) -> bool:
    return not summary.selected or bool(summary.tally.dead_letter_counts())


def _address(id_: int) -> str:
    return f"{PATH}/{id_}"
