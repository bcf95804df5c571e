"""Server-sent events: what changes, of all operations or of one."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query

from worker.api.auth import requires
from worker.api.context import Shared
from worker.api.filters import LARGEST_ID
from worker.api.follower import Follower
from worker.api.operations import OperationId, known
from worker.api.responses import RETRY_AFTER, ApiError, Fault, Faults, errors
from worker.api.routing import Route
from worker.api.stream import EventStream, Stream
from worker.config.api_tokens import Scope
from worker.model.changes import ChangeType, Told, told
from worker.model.text import shown

router = APIRouter(route_class=Route, prefix="/v0", tags=["events"])

_EXAMPLE = """\
retry: 2000

id: 4711
event: operation.changed
data: {"operation_id":"497f6eca-6276-4993-bfeb-53cbbbba6f08","operation_type":"CONVERGE","sequence":17,…}

"""
_STREAM: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {
        "description": "The events; each has the id after which a later call goes on",
        "content": {EventStream.media_type: {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}


def _types(
    types: Annotated[
        str | None,
        Query(description=f"Only changes of these types, separated by commas: {', '.join(ChangeType)}."),
    ] = None,
) -> frozenset[ChangeType]:
    try:
        return frozenset(map(ChangeType, types.split(","))) if types is not None else frozenset()
    except ValueError:
        problem = f"{shown(types)} is not a list of types: {', '.join(ChangeType)}"
        faults = Faults(faults=[Fault(where="types", problem=problem)])
        raise ApiError(HTTPStatus.BAD_REQUEST, f"types: {problem}", faults) from None


def _after(
    last_event_id: Annotated[
        int | None,
        Header(
            alias="Last-Event-ID",
            ge=0,
            le=LARGEST_ID,
            description="Id of the last event received: go on after it.",
        ),
    ] = None,
    in_query: Annotated[
        int | None,
        Query(
            alias="last_event_id",
            ge=0,
            le=LARGEST_ID,
            description="The same, for clients that cannot set the header, which wins.",
        ),
    ] = None,
) -> int | None:
    return in_query if last_event_id is None else last_event_id


def _require_room(shared: Shared) -> None:
    if told() is Told.NONE:
        raise ApiError(HTTPStatus.NOT_FOUND, "no changes are told: DEVICEOPS_CHANGES is none")
    if shared.feed.is_full:
        raise _full()


def _full() -> ApiError:
    message = "too many subscribers; try again later"
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, headers={"Retry-After": str(RETRY_AFTER)})


async def _known(operation_id: OperationId, shared: Shared) -> UUID:
    async with shared.database.read() as connection:
        await known(connection, operation_id)
    return operation_id


Types = Annotated[frozenset[ChangeType], Depends(_types)]
After = Annotated[int | None, Depends(_after)]


@router.get(
    "/events",
    response_class=EventStream,
    dependencies=[requires(Scope.READ_OPERATION), Depends(_require_room)],
    responses={**_STREAM, **errors(HTTPStatus.NOT_FOUND)},
)
async def follow_changes(
    shared: Shared,
    types: Types,
    after: After,
    since: Annotated[
        int | None,
        Query(ge=0, le=LARGEST_ID, description="Begin after this position, where no last event is named."),
    ] = None,
) -> EventStream:
    """Stream what changes, of all operations and dead letters, as server-sent events: from now on, or after an id.

    Where what follows the id is no longer kept, an event `reset` says so, and the stream goes on from now on.
    """
    return await _stream(shared, Follower(types=types), since if after is None else after)


@router.get(
    "/operations/{operation_id}/events",
    response_class=EventStream,
    dependencies=[requires(Scope.READ_OPERATION), Depends(_require_room)],
    responses={**_STREAM, **errors(HTTPStatus.NOT_FOUND)},
)
async def follow_operation(
    shared: Shared, operation_id: Annotated[UUID, Depends(_known)], types: Types, after: After
) -> EventStream:
    """Stream what changes of an operation as server-sent events: first its present state, or what is after an id.

    The present state is an event `operation`; the changes that follow have a higher `sequence`. Where what follows
    the id is no longer kept, an event `reset` says so, and the stream begins again with the present state.
    """
    return await _stream(shared, Follower(operation_id, types), after)


async def _stream(shared: Shared, follower: Follower, after: int | None) -> EventStream:
    feed, first = shared.feed, b""
    stream, ended = Stream(feed, follower), partial(feed.depart, follower)
    if not feed.enter(follower):  # others have come since the first look
        raise _full()
    if after is not None:
        follower.position = after
    else:
        try:
            first = await stream.begin()
        except BaseException:
            ended()
            raise
    return EventStream(stream.events(first), ended)
