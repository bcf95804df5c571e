"""Query parameters of lists, and page documents with links to the adjacent pages."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BeforeValidator, WithJsonSchema

from statemachine import SPELLINGS, OperationState, State
from worker.model.state_names import unknown_state
from worker.store import documents, pagination
from worker.store.pagination import Cursor, Neighbour, Ordering, PageRequest, PageResult

Document = TypeVar("Document", bound=documents.Page[Any])

_STATES = {str(spelling): state for spelling, state in SPELLINGS.items()}
_LOWER = [name for name in _STATES if name.islower()]
_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "enum": [name for name in _STATES if not name.islower()]},
        # A pattern, since code generators would make constants of the same names from a second enumeration.
        {"type": "string", "pattern": f"^({'|'.join(_LOWER)})$"},
    ]
}


def _state(text: object) -> State:
    state = _STATES.get(text) if isinstance(text, str) else None
    if state is None:
        raise ValueError(unknown_state(text))
    return state


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

DeviceOperationState = Annotated[
    Annotated[State, BeforeValidator(_state), WithJsonSchema(_SCHEMA)] | None,
    Query(description="Only device operations in this state: name or code."),
]
StateOfOperation = Annotated[OperationState | None, Query(description="Only operations in this state.")]


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


OldestFirst = Annotated[PageRequest, Depends(_page_request(Ordering.CREATED_AT))]
LatestFirst = Annotated[PageRequest, Depends(_page_request(Ordering.CREATED_AT_DESCENDING))]


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
