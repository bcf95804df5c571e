"""Lists as CSV or JSON lines: all rows, streamed from one snapshot of the database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from worker.api.context import MAX_EXPORTS, Context
from worker.api.responses import RETRY_AFTER, ApiError, Fault, Faults
from worker.store.export_lines import Format
from worker.store.exports import Export

STALLED = 60
"""Seconds in which a client takes nothing, after which its export is cut off."""
UNANSWERED = 300
"""Seconds in which the database gives nothing, after which an export is cut off: it may sort all rows first."""
LONGEST = 3_600
"""Seconds of an export: for so long the database keeps what others have replaced."""
ROW_COUNT = "X-Row-Count"
ABORT = "abort"
"""Key in the `state` of a request's scope: a function that ends its connection at once."""

_PAGING = ("limit", "offset", "ordering", "cursor")
_MEDIA_TYPES = {Format.CSV: "text/csv", Format.JSONL: "application/x-ndjson"}
_FORMATS = {media_type: format_ for format_, media_type in _MEDIA_TYPES.items()}
_JSON = {"application/json": 2, "application/*": 1, "*/*": 0}
"""Media ranges for a page, and how specific they are."""

_log = structlog.get_logger()

Opening = Callable[[AsyncConnection], Awaitable[Export]]
"""Opens an export on a snapshot. Raises ApiError."""


class _CutOff(Exception):
    """An export is ended early; the message says why."""


def accepted_format(accept: str) -> Format | None:
    """The format that a header `Accept` prefers to a page in JSON; None for a page."""
    best: tuple[float, int] = (0, -1)
    found = None
    for each in accept.split(","):
        name, *parameters = (part.strip().lower() for part in each.split(";"))
        if name not in _FORMATS and name not in _JSON:
            continue
        rank = (_quality(parameters), _JSON.get(name, 2))
        if rank[0] > 0 and rank > best:
            best, found = rank, _FORMATS.get(name)
    return found


def _quality(parameters: list[str]) -> float:
    for each in parameters:
        if each.startswith("q="):
            try:
                return float(each.removeprefix("q="))
            except ValueError:
                return 0
    return 1


def _requested_format(request: Request) -> Format | None:
    format_ = accepted_format(",".join(request.headers.getlist("accept")))
    given = [name for name in _PAGING if name in request.query_params]
    if format_ is not None and given:
        problem = f"is of pages; {_MEDIA_TYPES[format_]} has all rows, sorted by id"
        faults = [Fault(where=name, problem=problem) for name in given]
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{given[0]}: {problem}", Faults(faults=faults))
    return format_


RequestedFormat = Annotated[Format | None, Depends(_requested_format)]

EXPORTED: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {
        "content": {media_type: {"schema": {"type": "string"}} for media_type in _FORMATS},
        "headers": {
            ROW_COUNT: {
                "description": "Number of rows of `text/csv` and `application/x-ndjson`, which have all.",
                "schema": {"type": "integer", "minimum": 0},
            }
        },
    }
}
"""For the OpenAPI document: what an export answers."""


class ExportResponse(Response):
    """An export with its number of rows in a header. One that fails never ends as a whole one does.

    The connection is aborted without the last chunk when the database fails, or the client takes nothing for
    `STALLED` seconds. Raises ApiError before the response begins, 503 if there are `MAX_EXPORTS` already.
    """

    def __init__(self, context: Context, opening: Opening, format_: Format, name: str) -> None:
        super().__init__(media_type=_MEDIA_TYPES[format_])
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-store"
        self.headers["Content-Disposition"] = f'attachment; filename="{name}.{format_}"'
        self.headers["Vary"] = "Accept"
        self._context = context
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the export."""
        if self._context.exports.locked():
            message = f"{MAX_EXPORTS} exports run already; try again later"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, headers={"Retry-After": str(RETRY_AFTER)})
        gone = asyncio.create_task(_disconnected(receive))
        try:
            async with self._context.exports, _limited(LONGEST, "it takes longer than an hour"):
                await self._stream(scope, send, gone)
        except _CutOff as why:
            _log.warning("export cut off", why=str(why), path=scope["path"])
        finally:
            gone.cancel()

    async def _stream(self, scope: Scope, send: Send, gone: asyncio.Task[None]) -> None:
        async with self._context.database.read_long(2 * STALLED) as connection:
            async with asyncio.timeout(UNANSWERED):
                export = await self._opening(connection)
            self.headers[ROW_COUNT] = str(export.count)
            async with aclosing(export.portions) as portions:
                try:
                    await send(
                        {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                    )
                    while not gone.done():
                        async with asyncio.timeout(UNANSWERED):
                            portion = await anext(portions, None)
                        text = b"" if portion is None else portion.text
                        body = {"type": "http.response.body", "body": text, "more_body": portion is not None}
                        async with _limited(STALLED, "the client takes nothing"):
                            await send(body)
                        if portion is None:
                            return
                except BaseException:
                    await _abort(scope, gone)
                    raise


@asynccontextmanager
async def _limited(seconds: float, why: str) -> AsyncIterator[None]:
    """Limit a block to `seconds`, then raise `_CutOff`."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise _CutOff(why) from None


async def _abort(scope: Scope, gone: asyncio.Task[None]) -> None:
    """End the connection at once, with what was not sent yet; wait until the server knows."""
    abort = scope.get("state", {}).get(ABORT)
    if abort is not None:
        abort()
        await asyncio.wait({gone}, timeout=1)


async def _disconnected(receive: Receive) -> None:
    """Wait until the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
