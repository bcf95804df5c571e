"""Announce more devices of an operation: a form, and the announcement as the HTTP API takes it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple
from uuid import UUID, uuid4

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api.reports import origin
from worker.config.api_tokens import Scope
from worker.model.dead_letter import DeadLetter
from worker.model.id_range import parsed_uuid
from worker.model.identity import identity
from worker.model.messages import ANNOUNCEMENT, Message
from worker.model.outcomes import DUPLICATE
from worker.model.text import counted, shown
from worker.pages import audit, live
from worker.pages.operation.going import OperationId, row_of
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.processing.direct import process_message

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[may(Scope.READ_OPERATION)])

PATH = "/operations/{operation_id}/announce"
MOST = 20_000
"""Device ids of one form: a field has at most 1 MiB."""
_SHOWN = 5
"""Lines that are not ids which are named."""
_MOST_EXPECTED = 2**31 - 1

Acting = Annotated[Page, may(Scope.UPDATE_OPERATION)]


class Written(NamedTuple):
    """What was typed into the form."""

    devices: str = ""
    expected: str = ""
    operation_type: str = ""
    key: str = ""
    """Of this form: sent twice, it is announced once."""


@router.get(PATH, response_class=HTMLResponse)
async def show_announce(page: Acting, operation_id: OperationId) -> HTMLResponse:
    """The form."""
    return await _form(page, operation_id, Written(key=str(uuid4())))


@router.post(PATH, response_class=HTMLResponse)
async def announce(
    page: Acting,
    request: Request,
    operation_id: OperationId,
    devices: Annotated[str, Form()] = "",
    expected: Annotated[str, Form(max_length=20)] = "",
    operation_type: Annotated[str, Form(max_length=255)] = "",
    key: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Announce the operation again with these devices; what else was announced of it stays."""
    written = Written(devices, expected, operation_type, key)
    async with page.reading() as connection:
        before = await row_of(connection, operation_id)
    ids, problems = _ids(devices)
    number, problem = _number(expected)
    problems |= problem
    type_ = before.operation.operation or operation_type.strip()
    if not type_:
        problems["operation_type"] = "This operation has no type yet: enter one, such as CONVERGE."
    if not ids and number is None and not problems:
        problems["devices"] = "Enter at least one device id, or how many devices there will be."
    if problems:
        return await _form(page, operation_id, written, problems)
    named = {"device_ids": ids or None, "device_count": number}
    body = {
        "id": operation_id,
        "operation_type": type_,
        **{name: value for name, value in named.items() if value is not None},
    }
    encoded = to_json(body)
    # What was changed after a first time is another announcement, also under the key of the same form.
    message_id = identity(f"{key} {sha256(encoded).hexdigest()}" if key else "")
    message = Message(encoded, datetime.now(UTC), message_id, ANNOUNCEMENT, origin=origin(page.caller))
    detail = {"devices": len(ids), "device_count": number}
    shared = page.shared
    async with audit.acting(shared, request, "operation.announce", str(operation_id), detail) as outcome:
        found = (await process_message(shared.writing, message, shared.reporters, note=shared.note)).outcome
        if isinstance(found, DeadLetter):
            outcome[audit.OUTCOME] = f"refused: {found.detail}"
            return await _form(page, operation_id, written, {"": f"Nothing was announced: {found.detail}."})
        outcome[audit.OUTCOME] = str(found)
    async with page.reading() as connection:
        after = await row_of(connection, operation_id)
    page.live.publish(f"{live.OPERATION}/{operation_id}")
    if found == DUPLICATE:
        return await page.go(f"/operations/{operation_id}", "This was announced before: nothing has changed.")
    registered = after.progress.counters.resolved_device_count
    new = registered - before.progress.counters.resolved_device_count
    text = f"Announced {counted(len(ids), 'device')}, {new:,} of them new." if ids else "Announced."
    of_all = f" of {after.progress.expected:,} announced" if after.progress.unregistered else ""
    return await page.go(
        f"/operations/{operation_id}", f"{text} The operation has {counted(registered, 'device')}{of_all} now."
    )


async def _form(
    page: Page, operation_id: UUID, written: Written, problems: Mapping[str, str] | None = None
) -> HTMLResponse:
    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        row = await row_of(connection, operation_id)
        return {
            "row": row,
            "id": operation_id,
            "written": written,
            "problems": defaultdict(str, problems or {}),
            "most": MOST,
        }

    status = HTTPStatus.BAD_REQUEST if problems else HTTPStatus.OK
    return await page.whole("operation_announce.html", make, status=status)


def _ids(text: str) -> tuple[Sequence[UUID], dict[str, str]]:
    """Device ids, one a line, each once; and what is wrong with them by field."""
    found: dict[UUID, None] = {}
    wrong = []
    for number, line in enumerate(text.splitlines(), 1):
        if not (stripped := line.strip().rstrip(",;")):
            continue
        try:
            found[parsed_uuid(stripped)] = None
        except ValueError:
            wrong.append(f"line {number}: {shown(stripped)}")
    if wrong:
        more = f", and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        return (), {"devices": f"Not the id of a device (a UUID): {'; '.join(wrong[:_SHOWN])}{more}."}
    if len(found) > MOST:
        return (), {"devices": f"{len(found):,} ids are too many at a time: at most {MOST:,}."}
    return list(found), {}


def _number(text: str) -> tuple[int | None, dict[str, str]]:
    """The number of devices, None if it is left out; and what is wrong with it."""
    stripped = text.strip()
    if not stripped:
        return None, {}
    if stripped.isascii() and stripped.isdecimal() and int(stripped) <= _MOST_EXPECTED:
        return int(stripped), {}
    return None, {"expected": f"{shown(stripped)} is not a whole number from 0 to {_MOST_EXPECTED:,}."}
