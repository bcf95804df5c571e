"""Retry what failed of an operation: choose, see how many it is, and create the new operation."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode
from uuid import UUID, uuid4

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import State
from worker.api import retries as of_api
from worker.api.responses import ApiError
from worker.api.retries import RetryRequest
from worker.config.api_tokens import Scope
from worker.model.findings import problem
from worker.model.text import counted
from worker.pages import audit, live
from worker.pages.operation.going import OperationId, row_of
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.processing.retry import FAILED, Retry, found_by
from worker.store import retries
from worker.store.documents import Progress

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[may(Scope.READ_OPERATION)])

PATH = "/operations/{operation_id}/retry"
STATES = State.FAILURE, State.TIMEOUT, State.CANCELLED

Acting = Annotated[Page, may(Scope.UPDATE_OPERATION)]


class Written(NamedTuple):
    """What was chosen, as it was typed; empty is no filter."""

    states: Sequence[str]
    code: str = ""
    service_id: str = ""
    reason: str = ""
    no_reason: bool = False
    """Only those without a code and a reason, which an empty field cannot say."""

    @property
    def query(self) -> str:
        """As the query of an address."""
        chosen = {"code": self.code, "service_id": self.service_id, "reason": self.reason}
        named = [(name, value) for name, value in chosen.items() if value]
        return urlencode([*(("state", state) for state in self.states), *named, *self._no_reason])

    @property
    def _no_reason(self) -> Sequence[tuple[str, str]]:
        return [("no_reason", "true")] if self.no_reason else []


@router.get(PATH, response_class=HTMLResponse)
async def show_retry(
    page: Acting,
    operation_id: OperationId,
    state: Annotated[list[str] | None, Query(max_length=len(STATES))] = None,
    code: str = "",
    service_id: str = "",
    reason: str = "",
    no_reason: bool = False,
) -> HTMLResponse:
    """What would be retried: the filters, and the number that they find."""
    states = state or [each.name for each in sorted(FAILED)]
    written = Written(states, code.strip(), service_id.strip(), reason, no_reason)
    return await _form(page, operation_id, written, uuid4())


@router.post(PATH, response_class=HTMLResponse)
async def retry(
    page: Acting,
    request: Request,
    operation_id: OperationId,
    state: Annotated[list[str], Form()],
    new_id: Annotated[UUID, Form()],
    code: Annotated[str, Form()] = "",
    service_id: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
    no_reason: Annotated[bool, Form()] = False,
) -> Response:
    """Create the operation of the retry. The form sent twice creates it once."""
    written = Written(state, code, service_id, reason, no_reason)
    wanted, problems = _parsed(operation_id, written, new_id)
    if wanted is None:
        return await _form(page, operation_id, written, new_id, problems)
    detail = wanted.model_dump(mode="json", exclude_none=True, exclude={"retry_of"})
    detail["state"] = [State(each).name for each in wanted.state or ()]
    async with audit.acting(page.shared, request, "operation.retry", str(operation_id), detail) as outcome:
        try:
            is_new = await of_api.retry(wanted, page.shared, page.caller, None)
        except ApiError as error:
            outcome[audit.OUTCOME] = f"refused: {error.detail}"
            if error.status_code == HTTPStatus.NOT_FOUND:
                raise
            problem = {"": f"Nothing was created: {error.detail}."}
            return await _form(page, operation_id, written, uuid4(), problem)
        outcome[audit.OUTCOME] = "created" if is_new else "was there already"
    async with page.reading() as connection:
        created = await row_of(connection, new_id)
    for each in (operation_id, new_id):
        page.live.publish(f"{live.OPERATION}/{each}")
    page.live.publish(live.OPERATIONS)
    number = counted(created.progress.counters.resolved_device_count, "device operation")
    if not is_new:
        return await page.go(f"/operations/{new_id}", f"This retry was there already, with {number}.")
    return await page.go(f"/operations/{new_id}", f"Created: the retry of {number} of operation {operation_id}.")


async def _form(
    page: Page, operation_id: UUID, written: Written, new_id: UUID, problems: Mapping[str, str] | None = None
) -> HTMLResponse:
    wanted, faults = _parsed(operation_id, written, new_id)
    problems = defaultdict(str, {**faults, **(problems or {})})

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        row = await row_of(connection, operation_id)
        number = None if wanted is None else await _count(connection, wanted, row.progress)
        return {
            "row": row,
            "id": operation_id,
            "new_id": new_id,
            "written": written,
            "problems": problems,
            "number": number,
            "in_words": "" if wanted is None else found_by(_retry(wanted)),
            "states": STATES,
        }

    return await page.whole(
        "operation_retry.html", make, status=HTTPStatus.BAD_REQUEST if problems else HTTPStatus.OK
    )


def _parsed(operation_id: UUID, written: Written, new_id: UUID) -> tuple[RetryRequest | None, dict[str, str]]:
    """The body with which the HTTP API would be called; or what is wrong, by field."""
    given = {"code": written.code, "service_id": written.service_id, "reason": written.reason}
    named: dict[str, object] = {name: value for name, value in given.items() if value}
    if written.no_reason:
        named["reason"] = ""
    body = {"retry_of": operation_id, "id": new_id, "state": list(written.states), **named}
    try:
        return RetryRequest.model_validate(body), {}
    except ValidationError as error:
        faults = error.errors(include_url=False)
        return None, {str(each["loc"][0]): f"{problem(each)}." for each in faults}


def _retry(wanted: RetryRequest) -> Retry:
    states = FAILED if wanted.state is None else frozenset(wanted.state)
    return Retry(wanted.retry_of, wanted.id, states, wanted.code, wanted.service_id, wanted.reason)


async def _count(connection: AsyncConnection, wanted: RetryRequest, progress: Progress) -> int:
    """How many device operations would be retried: by the counters, where they have the number."""
    chosen = _retry(wanted).filter
    if chosen.is_of_states:
        return sum(chosen.counts(progress).values())
    return await retries.count_devices(connection, wanted.retry_of, chosen)
