"""The parameters of pages, and pages with the addresses of their neighbours."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BeforeValidator, WithJsonSchema

from statemachine import SPELLINGS, OperationState, State
from worker.model.text import shown
from worker.store import documents, pagination
from worker.store.pagination import Cursor, Neighbour, Ordering, Page, Window

Document = TypeVar("Document", bound=documents.Page[Any])

_STATES = {str(spelling): state for spelling, state in SPELLINGS.items()}
_LOWER = [name for name in _STATES if name.islower()]
_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "enum": [name for name in _STATES if not name.islower()]},
        # Not in the enumeration, of which generators make constants of the same names.
        {"type": "string", "pattern": f"^({'|'.join(_LOWER)})$"},
    ]
}


def _state(text: object) -> State:
    state = _STATES.get(text) if isinstance(text, str) else None
    if state is None:
        raise ValueError(f"{shown(text)} is not a device-operation state such as SUCCESS or 50")
    return state


Limit = Annotated[int, Query(ge=1, le=pagination.MAX_LIMIT, description="Results on a page.")]
Offset = Annotated[
    int, Query(ge=0, le=pagination.MAX_OFFSET, description="Results before the page; the deeper, the slower.")
]
_Cursor = Annotated[
    str | None,
    Query(
        pattern=pagination.CURSOR_PATTERN,
        max_length=70,
        description="Takes the place of `offset` where pages are deep: empty for the first page; from then on "
        "`next` and `previous` have it.",
    ),
]

DeviceOperationState = Annotated[
    Annotated[State, BeforeValidator(_state), WithJsonSchema(_SCHEMA)] | None,
    Query(description="Only what is in this state: its name or its code."),
]
StateOfOperation = Annotated[OperationState | None, Query(description="Only what is in this state.")]


def _window(ordered: Ordering) -> Callable[..., Window]:
    def window(
        limit: Limit = pagination.LIMIT,
        offset: Offset = 0,
        ordering: Annotated[
            Ordering, Query(description="What comes first; `-` for descending. What is equal is ordered by id.")
        ] = ordered,
        cursor: _Cursor = None,
    ) -> Window:
        return Window(limit, offset, ordering, None if cursor is None else Cursor.parse(cursor))

    return window


OldestFirst = Annotated[Window, Depends(_window(Ordering.CREATED_AT))]
LatestFirst = Annotated[Window, Depends(_window(Ordering.CREATED_AT_DESCENDING))]


def _of_history(
    limit: Limit = pagination.LIMIT,
    offset: Offset = 0,
    ordering: Annotated[
        Literal[Ordering.CREATED_AT, Ordering.CREATED_AT_DESCENDING],
        Query(description="What comes first; `-` for the latest."),
    ] = Ordering.CREATED_AT,
) -> Window:
    return Window(limit, offset, ordering)


OfHistory = Annotated[Window, Depends(_of_history)]


def document(kind: type[Document], page: Page[Any], request: Request) -> Document:
    """A page as a document of a kind: its neighbours' addresses keep every parameter of the request."""

    def address(neighbour: Neighbour | None) -> str | None:
        return None if neighbour is None else str(request.url.include_query_params(**neighbour))

    return kind(
        count=page.count,
        previous=address(page.previous),
        next=address(page.next),
        results=list(page.results),
    )
