"""Authentication by bearer token, authorization by scope; without tokens, calls from this machine only."""

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
"""Prefix of the paths that require a token; others, such as the documentation, require none."""
ANONYMOUS = Caller("anybody", frozenset(Scope))
"""The caller where no tokens are configured, with every scope."""

_OF_PROXIES = re.compile(
    "via|cdn-loop|.*forwarded.*|.*(client|real|connecting|originating|remote)[-_]?(ip|addr)|x-original-host"
    "|x-envoy-external-address"
)
"""Names of headers that proxies add: RFC 7239, its predecessors, and some of particular products."""

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A token from `deviceops token create`.")


class TokenBackend(AuthenticationBackend):
    """Authenticates callers by token; without tokens, allows callers on this machine."""

    def __init__(self, known: Mapping[str, Token] | None) -> None:
        self._known = known

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return the caller and its scopes, None outside `PATHS`. Raises AuthenticationError."""
        if not conn.scope["path"].startswith(PATHS):
            return None
        caller = self._anonymous(conn) if self._known is None else self._known_caller(conn, self._known)
        return AuthCredentials(sorted(caller.scopes)), caller  # type: ignore[return-value]  # has the attributes that are used

    def _known_caller(self, conn: HTTPConnection, known: Mapping[str, Token]) -> Caller:
        scheme, _, text = conn.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationError("a bearer token is required")
        caller = api_tokens.find(known, text.strip())
        if caller is None:
            raise AuthenticationError("unknown token")
        return caller

    def _anonymous(self, conn: HTTPConnection) -> Caller:
        if (reason := remote_reason(conn)) is not None:
            raise AuthenticationError(f"no tokens are configured, and {reason}: see `deviceops token create`")
        return ANONYMOUS


def remote_reason(conn: HTTPConnection) -> str | None:
    """Why a call may come from outside this machine, whichever proxies are trusted; None if it cannot."""
    for name in conn.headers:
        if _OF_PROXIES.fullmatch(name):
            return f"a call through a proxy ({name}) requires one"
    if conn.scope["http_version"] == "1.0":
        # nginx's default towards an upstream, with the upstream's address as Host, and no other sign of a proxy.
        return "a call by HTTP/1.0, as from a proxy, requires one"
    if conn.client is None or not is_loopback(conn.client.host):
        return "a call from another machine requires one"
    # DNS rebinding: a page in a browser on this machine could resolve its own name to this machine.
    if not is_loopback(conn.url.hostname or ""):
        return "only calls to localhost are allowed"
    # Cross-site requests: a page can make the browser send them, though it cannot read the responses.
    own = f"{conn.url.scheme}://{conn.url.netloc}"
    if conn.headers.get("origin", own) != own or conn.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return "a call from a web page of another site requires one"
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address is a loopback one."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def unauthorized(_conn: HTTPConnection, refused: Exception) -> Response:
    """Return the response to a failed authentication."""
    return responses.error(HTTPStatus.UNAUTHORIZED, str(refused), headers={"WWW-Authenticate": "Bearer"})


def requires(scope: Scope) -> Any:
    """A FastAPI dependency that requires a scope. Raises ApiError (403)."""

    def check(caller: CalledBy, _token: Annotated[object, Security(_bearer)]) -> None:
        if scope not in caller.scopes:
            message = f"token {shown(caller.name)} lacks scope {scope}"
            raise responses.ApiError(HTTPStatus.FORBIDDEN, message)

    dependency: Callable[..., None] = check
    return Depends(dependency)
