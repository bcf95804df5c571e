"""Who calls, and what they may do."""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import HTTPBearer
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.requests import HTTPConnection
from starlette.responses import Response

from worker.api import responses
from worker.api.context import CalledBy
from worker.config import api_tokens
from worker.config.api_tokens import Caller, Scope, Token
from worker.model.text import shown

PATHS = "/v0/"
"""How the paths begin that need a token; what is beside them, the documentation, needs none."""
ANYBODY = Caller("anybody", frozenset(Scope))
"""Who calls where there are no tokens: everybody on this machine."""

_OF_PROXIES = re.compile(
    "via|cdn-loop|.*forwarded.*|.*(client|real|connecting|originating|remote)[-_]?(ip|addr)|x-original-host"
    "|x-envoy-external-address"
)
"""The names of headers that proxies add: RFC 7239's, those from before it, and some that products have."""

_bearer = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token that `deviceops token create` has made."
)


class Tokens(AuthenticationBackend):
    """Recognises callers by their tokens; without tokens, lets in who is on this machine."""

    def __init__(self, known: Mapping[str, Token] | None) -> None:
        self._known = known

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Say who calls. Raises AuthenticationError."""
        if not conn.scope["path"].startswith(PATHS):
            return None
        caller = self._anybody(conn) if self._known is None else self._known_caller(conn, self._known)
        return AuthCredentials(sorted(caller.scopes)), caller  # type: ignore[return-value]  # has what is used of a user

    def _known_caller(self, conn: HTTPConnection, known: Mapping[str, Token]) -> Caller:
        scheme, _, text = conn.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationError("a bearer token is needed")
        caller = api_tokens.find(known, text.strip())
        if caller is None:
            raise AuthenticationError("the token is unknown")
        return caller

    def _anybody(self, conn: HTTPConnection) -> Caller:
        if (stranger := _stranger(conn)) is not None:
            raise AuthenticationError(f"there are no tokens, and {stranger}: see `deviceops token create`")
        return ANYBODY


def _stranger(conn: HTTPConnection) -> str | None:
    """Why a call may come from beyond this machine, whatever proxies are trusted; None if it does not."""
    for name in conn.headers:
        if _OF_PROXIES.fullmatch(name):
            return f"a call that a proxy hands on ({name}) needs one"
    if conn.scope["http_version"] == "1.0":
        # nginx speaks it unless told otherwise, with the address of what is behind it as Host, and no other sign.
        return "a call by HTTP/1.0, as proxies make them, needs one"
    if conn.client is None or not is_loopback(conn.client.host):
        return "a call from another machine needs one"
    # A page in a browser on this machine could call by a name that it has resolve to this machine.
    if not is_loopback(conn.url.hostname or ""):
        return "calls have to be to localhost"
    # And such a page can make a browser send what it likes, though not read what is answered.
    own = f"{conn.url.scheme}://{conn.url.netloc}"
    if conn.headers.get("origin", own) != own or conn.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return "a call of a web page that is not of this server needs one"
    return None


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is that of the machine itself."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def answer_stranger(_conn: HTTPConnection, refused: Exception) -> Response:
    """Answer who is not let in."""
    return responses.error(HTTPStatus.UNAUTHORIZED, str(refused), headers={"WWW-Authenticate": "Bearer"})


def needs(scope: Scope) -> Any:
    """A dependency of calls that need a scope."""

    def check(caller: CalledBy, _token: Annotated[object, Security(_bearer)]) -> None:
        if scope not in caller.scopes:
            message = f"the token {shown(caller.name)} has not the scope {scope}"
            raise responses.Refusal(HTTPStatus.FORBIDDEN, message)

    dependency: Callable[..., None] = check
    return Depends(dependency)
