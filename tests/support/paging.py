"""The web page as a browser has it: a signed-in visitor, and what a page shows."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape

import httpx

from tests.support.serving import TIMEOUT, Server

COOKIE = "deviceops_session"


class Visitor(httpx.Client):
    """A browser without scripts: it keeps cookies, names its origin with each POST, and follows no redirect."""

    def __init__(self, server: Server) -> None:
        super().__init__(base_url=server.url, timeout=TIMEOUT, trust_env=False)

    def act(self, path: str, **fields: str) -> httpx.Response:
        """Send a form."""
        origin = str(self.base_url).rstrip("/")
        return self.post(path, data=fields, headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"})

    def sign_in(self, token: str, address: str = "/") -> httpx.Response:
        """Sign in with a token."""
        return self.act("/sign-in", token=token, next=address)


@contextmanager
def signed_in(server: Server, token: str | None = None) -> Iterator[Visitor]:
    """A visitor with a session; with the token that may do everything if none is given."""
    with Visitor(server) as visitor:
        response = visitor.sign_in(token or server.token)
        assert response.status_code == httpx.codes.SEE_OTHER, response.text
        yield visitor


def text_of(response: httpx.Response) -> str:
    """The text that a page shows, in one line."""
    without = re.sub(r"<(script|style|head)\b.*?</\1>", " ", response.text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", without)).split())
