"""Who may see and do what on the web page: the tokens of the HTTP API, signed in once, and their scopes.

Without tokens it is this machine alone, by the rules of the HTTP API, and nothing is signed in.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import HTTPConnection

from worker.api.auth import ANONYMOUS, remote_reason
from worker.api.context import Context
from worker.api.responses import ApiError
from worker.config.api_tokens import Caller, Token
from worker.pages.attempts import Attempts
from worker.pages.facts import Facts
from worker.pages.jobs import Jobs
from worker.pages.live import Live
from worker.pages.renderings import Renderings
from worker.pages.sessions import Sessions
from worker.store.database import Database, time_limit

COOKIE = "deviceops_session"
WITHIN = "deviceops.within"
"""Key of the scope of a request that this process makes to itself: its caller, who is let in already."""
SIGN_IN = "/sign-in"
READERS = 2
"""Pages that read at a time, so that calls of the API have connections of the pool."""
LONGEST_ADDRESS = 2_000
"""Characters of an address to go on to after signing in, and of one of a live part."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pages of a process share: `request.app.state.pages`."""

    tokens: Mapping[str, Token] | None
    """None without tokens: calls from this machine only."""
    sessions: Sessions
    live: Live
    renderings: Renderings
    facts: Facts
    """Of the system page."""
    attempts: Attempts = field(default_factory=Attempts)
    jobs: Jobs = field(default_factory=Jobs)
    readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS))

    @asynccontextmanager
    async def reading(self, database: Database) -> AsyncIterator[AsyncConnection]:
        """A snapshot of the database, in which at most `READERS` pages read at a time.

        Waiting for it counts as waiting for the database: TimeoutError after its limit.
        """
        async with time_limit(database.limit), self.readers, database.read() as connection:
            yield connection


class SignInRequired(Exception):
    """The caller has not signed in; the route answers with a redirect."""


class FromElsewhere(Exception):
    """The caller follows a link on a page of another site, so that the browser has held the cookie back."""


def pages_of(request: HTTPConnection) -> Pages:
    """What the pages share."""
    found: Pages = request.app.state.pages
    return found


async def caller_of(request: Request, shared: Context) -> tuple[Caller, str | None]:
    """The caller, and the id of its session, None without tokens.

    Raises SignInRequired, FromElsewhere, ApiError (403) without tokens for calls from other machines or pages, and
    the database's errors.
    """
    pages = pages_of(request)
    if (within := request.scope.get(WITHIN)) is not None:
        caller, session = within, None
    elif pages.tokens is None:
        if (reason := remote_reason(request)) is not None:
            if _follows_a_link(request):
                raise FromElsewhere
            raise ApiError(
                HTTPStatus.FORBIDDEN, f"no tokens are configured, and {reason}: see `deviceops token create`"
            )
        caller, session = ANONYMOUS, None
    else:
        found = await pages.sessions.find(shared, request.cookies.get(COOKIE))
        if found is None:
            raise FromElsewhere if _follows_a_link(request) else SignInRequired
        session, caller = found
    request.scope["user"] = caller  # for the request log, and for `audit`
    return caller, session


def _follows_a_link(request: Request) -> bool:
    """Whether a browser loads this page for a link on a page of another site.

    It then sends no cookie that is SameSite=Strict, and does so for the next request, which our own page makes.
    """
    headers = request.headers
    is_navigation = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return request.method == "GET" and is_foreign and is_navigation


def require_own_origin(request: Request) -> None:
    """Require that a request which changes something comes from a page of ours. Raises ApiError (403)."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if site not in (None, "same-origin"):
        raise ApiError(HTTPStatus.FORBIDDEN, "the request comes from a page of another site")
    if origin is None and site is None:
        raise ApiError(HTTPStatus.FORBIDDEN, "the request names no page that it comes from (Origin)")
    # By host and port: behind a proxy that is not trusted, the scheme of the request is not the browser's.
    if origin is not None and _authority(origin) != _authority(f"{request.url.scheme}://{request.url.netloc}"):
        raise ApiError(HTTPStatus.FORBIDDEN, "the request comes from a page of another site")


def _authority(origin: str) -> tuple[str | None, int | None] | None:
    try:
        found = urlsplit(origin)
        port = None if found.port in (80, 443) else found.port
    except ValueError:
        return None
    return None if found.hostname is None else (found.hostname, port)


def safe_next(address: str) -> str:
    """An address of this page to go on to; `/` for one that may lead elsewhere."""
    is_local = address.startswith("/") and address[1:2] not in ("/", "\\") and "\\" not in address
    return address if is_local and address.isprintable() and len(address) <= LONGEST_ADDRESS else "/"


def sign_in_address(request: Request) -> str:
    """Where to sign in, to come back to what was asked for; a fragment leads back to the page that shows it."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if "hx-request" in request.headers:
        try:
            current = urlsplit(request.headers.get("hx-current-url", "/"))
        except ValueError:
            return SIGN_IN
        wanted = current.path + (f"?{current.query}" if current.query else "")
    if request.method != "GET" or safe_next(wanted) == "/":
        return SIGN_IN
    return f"{SIGN_IN}?{urlencode({'next': wanted})}"
