"""What a proxy says of the caller's side of it, believed of those that are trusted."""

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_PORT = re.compile(r":[0-9]+$")
_STANDARD_PORTS = ("80", "443")


class Forwarded(ProxyHeadersMiddleware):
    """Takes the caller's address, the scheme, and also the host from X-Forwarded-For, -Proto, -Host and -Port.

    So links lead to where the caller has come from. The host is the first of several, which was asked for.
    The port counts where that has none. A prefix that a proxy takes from paths is not known of.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        """Pass a request on."""
        caller = scope.get("client")
        if scope["type"] == "http" and caller is not None and caller[0] in self.trusted_hosts:
            headers = Headers(scope=scope)
            port = headers.get("x-forwarded-port", "").split(",")[0].strip()
            # Alone, the port is that of the host that was asked for.
            asked_for = _PORT.sub("", headers.get("host", "")) if port else ""
            host = headers.get("x-forwarded-host", asked_for).split(",")[0].strip()
            if names_a_host(host):
                if port.isdecimal() and port not in _STANDARD_PORTS and names_a_host(f"{host}:{port}"):
                    host = f"{host}:{port}"
                others = [(name, value) for name, value in scope["headers"] if name != b"host"]
                scope["headers"] = [(b"host", host.encode()), *others]
        await super().__call__(scope, receive, send)  # type: ignore[arg-type]


def names_a_host(text: str) -> bool:
    """Whether this is a host, and possibly a port, as the header Host may have it."""
    try:
        return bool(_HOST.fullmatch(text)) and urlsplit(f"//{text}").port != 0
    except ValueError:
        return False
