"""The one stream of server-sent events of a page: its parts, whenever one of their topics has changed."""

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request

from worker.api.responses import RETRY_AFTER, ApiError
from worker.api.stream import HEARTBEAT, EventStream
from worker.config.api_tokens import Scope
from worker.model.id_range import parsed_uuid
from worker.pages import live
from worker.pages.access import COOKIE, WITHIN, pages_of
from worker.pages.live import OpenPage
from worker.pages.page import Page, may
from worker.pages.parts import Part, frame, render
from worker.pages.routing import PageRoute
from worker.store.errors import is_database_error

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/events", response_class=EventStream)
async def follow(
    request: Request,
    page: Annotated[Page, may(None)],
    topic: Annotated[list[str], Query(max_length=live.MAX_TOPICS)],
    part: Annotated[list[str], Query(max_length=live.MAX_TOPICS)] = [],  # noqa: B006  # FastAPI copies it
) -> EventStream:
    """Events of the topics of a page, and its parts as HTML whenever one of their topics has changed.

    A part's event is `part-<id>`; `again-<id>` if it cannot be rendered now, so that the page asks for it by
    itself and shows why. A topic's event is named by its kind.
    """
    if WITHIN in request.scope:
        raise ApiError(HTTPStatus.BAD_REQUEST, "the stream is no part of a page")
    pages, open_page = pages_of(request), OpenPage(map(_known, topic))
    parts = [Part.parse(each) for each in part]
    for each in open_page.topics:
        page.require(_SCOPES[each.partition("/")[0]])
    if not pages.live.enter(open_page):
        message = "too many open pages; try again later"
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, headers={"Retry-After": str(RETRY_AFTER)})

    return EventStream(_events(request, page, open_page, parts), partial(pages.live.leave, open_page))


async def _events(
    request: Request, page: Page, open_page: OpenPage, parts: Sequence[Part]
) -> AsyncGenerator[bytes, None]:
    """The events; they end with the session."""
    pages, caller = pages_of(request), page.caller
    sent: dict[str, bytes] = {}
    yield b"retry: 2000\n\n"
    while (pending := await open_page.changed(HEARTBEAT)) is not None:
        if pages.tokens is not None:
            try:
                found = await pages.sessions.find(page.shared, request.cookies.get(COOKIE))
            except Exception as error:
                if not is_database_error(error):
                    raise
            else:
                if found is None:
                    return
                caller = found.caller
        events = [frame(topic.partition("/")[0], topic) for topic in sorted(pending)]
        kinds = {topic.partition("/")[0] for topic in pending}
        for part in parts:
            if kinds.isdisjoint(part.kinds):
                continue
            event = await render(part, request, caller, open_page.topics)
            if event is None:
                events.append(frame(f"again-{part.id}", "again"))
            elif event != sent.get(part.id):
                events.append(event)
            sent[part.id] = event or b""
        yield b"".join(events) or b":\n\n"


_SCOPES = {
    live.OPERATIONS: Scope.READ_OPERATION,
    live.OPERATION: Scope.READ_OPERATION,
    live.DEVICE: Scope.READ_DEVICE,
    live.DEAD_LETTERS: Scope.ADMIN_DEAD_LETTERS,
    live.SYSTEM: Scope.READ_OPERATION,
}


def _known(topic: str) -> str:
    """A topic in its one spelling. Raises ApiError (400) for one that does not exist."""
    kind, _, id_ = topic.partition("/")
    if topic in (live.OPERATIONS, live.DEAD_LETTERS, live.SYSTEM):
        return topic
    try:
        if kind in (live.OPERATION, live.DEVICE):
            return f"{kind}/{parsed_uuid(id_)}"
    except ValueError:
        pass
    raise ApiError(HTTPStatus.BAD_REQUEST, "there is no such topic")
