"""Lists: query parameters as forms send them, and links to the adjacent pages."""

from dataclasses import replace
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Request

from worker.api.pagination import LatestFirst
from worker.store.pagination import Cursor, Neighbour, PageRequest, PageResult


def _by_cursor(request: LatestFirst) -> PageRequest:
    """Pages by cursor, which cost the same however far they are; an offset is kept if it is given."""
    return request if request.cursor or request.offset else replace(request, cursor=Cursor(None))


Latest = Annotated[PageRequest, Depends(_by_cursor)]
"""The page of a list that is asked for; by default the first one, the latest rows first."""


class Links(NamedTuple):
    """Addresses of the adjacent pages, None at the ends, and of the first one."""

    previous: str | None
    next: str | None
    first: str | None
    """None on the first page."""


def links(request: Request, page: PageResult[Any], path: str) -> Links:
    """Links to other pages of a list at a path; they keep every other parameter of the request."""

    def link(neighbour: Neighbour | None) -> str | None:
        return None if neighbour is None else address(path, request, **{k: str(v) for k, v in neighbour.items()})

    is_first = not ({"cursor", "offset"} & request.query_params.keys())
    first = None if is_first else address(path, request, cursor=None, offset=None)
    return Links(link(page.previous), link(page.next), first)


def address(path: str, request: Request, **changed: str | None) -> str:
    """A path with the parameters of the request, of which some are changed; None removes one."""
    kept = [each for each in parse_qsl(request.url.query) if each[0] not in changed]
    query = urlencode([*kept, *((name, value) for name, value in changed.items() if value is not None)])
    return f"{path}?{query}" if query else path
