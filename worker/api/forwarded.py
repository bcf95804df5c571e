"""Client address, scheme and host from the `X-Forwarded-*` headers of trusted proxies."""

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_PORT = re.compile(r":[0-9]+$")
_STANDARD_PORTS = ("80", "443")


class ForwardedMiddleware(ProxyHeadersMiddleware):
    """Applies X-Forwarded-For, -Proto, -Host and -Port, so that links use the address that the caller used.

    Of several hosts the first one is used. X-Forwarded-Port applies to a host without a port. A path prefix that
    the proxy strips is not supported.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        """Handle a request."""
        caller = scope.get("client")
        if scope["type"] == "http" and caller is not None and caller[0] in self.trusted_hosts:
            headers = Headers(scope=scope)
            port = headers.get("x-forwarded-port", "").split(",")[0].strip()
            # Without X-Forwarded-Host, the port applies to the requested host.
            asked_for = _PORT.sub("", headers.get("host", "")) if port else ""
            host = headers.get("x-forwarded-host", asked_for).split(",")[0].strip()
            if names_a_host(host):
                if port.isdecimal() and port not in _STANDARD_PORTS and names_a_host(f"{host}:{port}"):
                    host = f"{host}:{port}"
                others = [(name, value) for name, value in scope["headers"] if name != b"host"]
                scope["headers"] = [(b"host", host.encode()), *others]
        await super().__call__(scope, receive, send)  # type: ignore[arg-type]


def names_a_host(text: str) -> bool:
    """Whether a text is a valid Host header: a host name or address, and optionally a port."""
    try:
        return bool(_HOST.fullmatch(text)) and urlsplit(f"//{text}").port != 0
    except ValueError:
        return False
