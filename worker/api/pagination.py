"""Query parameters of lists, and page documents with links to the adjacent pages."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from fastapi import Depends, Query, Request

from worker.api.list_filters import ChosenDevices
from worker.store import documents, pagination
from worker.store.device_filter import DeviceFilter
from worker.store.pagination import Cursor, Neighbour, Ordering, PageRequest, PageResult

Document = TypeVar("Document", bound=documents.Page[Any])

Limit = Annotated[int, Query(ge=1, le=pagination.MAX_LIMIT, description="Maximum number of results on a page.")]
Offset = Annotated[
    int,
    Query(
        ge=0,
        le=pagination.MAX_OFFSET,
        description="Results to skip; slow if large, see `cursor`.",
    ),
]
_Cursor = Annotated[
    str | None,
    Query(
        pattern=pagination.CURSOR_PATTERN,
        max_length=70,
        description="Keyset pagination, in place of `offset`: empty for the first page; `next` and `previous` "
        "contain the cursors of the adjacent pages.",
    ),
]


def _page_request(ordered: Ordering) -> Callable[..., PageRequest]:
    def page_request(
        limit: Limit = pagination.LIMIT,
        offset: Offset = 0,
        ordering: Annotated[
            Ordering, Query(description="Sort order; `-` for descending. Ties are sorted by id.")
        ] = ordered,
        cursor: _Cursor = None,
    ) -> PageRequest:
        return PageRequest(limit, offset, ordering, None if cursor is None else Cursor.parse(cursor))

    return page_request


LatestFirst = Annotated[PageRequest, Depends(_page_request(Ordering.CREATED_AT_DESCENDING))]


class DevicePageRequest(NamedTuple):
    """A page of an operation's device operations, and which of them."""

    chosen: DeviceFilter
    request: PageRequest


def _of_device_operations(
    chosen: ChosenDevices,
    limit: Limit = pagination.LIMIT,
    offset: Offset = 0,
    ordering: Annotated[
        Ordering | None,
        Query(
            description="Sort order; `-` for descending. Ties are sorted by id. By default `created_at`; with "
            "filters other than `state` `updated_at`, and other orders are slower the more rows there are."
        ),
    ] = None,
    cursor: _Cursor = None,
) -> DevicePageRequest:
    position = None if cursor is None else Cursor.parse(cursor)
    return DevicePageRequest(chosen, PageRequest(limit, offset, ordering or chosen.ordering, position))


OfDeviceOperations = Annotated[DevicePageRequest, Depends(_of_device_operations)]


def _of_history(
    limit: Limit = pagination.LIMIT,
    offset: Offset = 0,
    ordering: Annotated[
        Literal[Ordering.CREATED_AT, Ordering.CREATED_AT_DESCENDING],
        Query(description="Sort order; `-` for newest first."),
    ] = Ordering.CREATED_AT,
) -> PageRequest:
    return PageRequest(limit, offset, ordering)


OfHistory = Annotated[PageRequest, Depends(_of_history)]


def document(kind: type[Document], page: PageResult[Any], request: Request) -> Document:
    """Build a page document; the links to the adjacent pages keep every other parameter of the request."""

    def link(neighbour: Neighbour | None) -> str | None:
        return None if neighbour is None else str(request.url.include_query_params(**neighbour))

    return kind(
        count=page.count,
        previous=link(page.previous),
        next=link(page.next),
        results=list(page.results),
    )
