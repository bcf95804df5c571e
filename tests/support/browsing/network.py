"""The requests that pages made, from the events of Chromium's network that its driver keeps."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_LONGEST = 200
"""Characters of an address that are shown."""


@dataclass
class Request:
    """A request of a page, and what came of it so far."""

    method: str
    url: str
    kind: str
    """What it was for, such as Document, Stylesheet, Script, Image, Fetch, EventSource."""
    status: int | None = None
    type: str | None = None
    """The media type of the response."""
    bytes: int = 0
    """What came over the wire, headers included; none for what came from the cache."""
    failed: str | None = None
    is_ended: bool = False
    """It failed, or all of its answer is there."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the response, with names in small letters."""

    @property
    def path(self) -> str:
        """The path within its site."""
        return urlsplit(self.url).path

    def __str__(self) -> str:
        said = self.failed or self.status or "no response yet"
        url = self.url if len(self.url) < _LONGEST else f"{self.url[:_LONGEST]}…"
        return f"{self.method} {url}: {said}, {self.bytes:,} bytes, {self.kind}"


class Network:
    """The requests that were made since it was made, or cleared, in their order."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._by_id: dict[str, Request] = {}

    def clear(self) -> None:
        """Forget all requests; what still comes for them is not counted."""
        self.requests.clear()
        self._by_id.clear()

    @property
    def bytes(self) -> int:
        """All that came over the wire."""
        return sum(request.bytes for request in self.requests)

    def elsewhere(self, site: str) -> list[str]:
        """The requests to other hosts or ports than a site's; data: and the like have no host."""
        return [
            str(request)
            for request in self.requests
            if urlsplit(request.url).netloc not in ("", urlsplit(site).netloc)
        ]

    def take(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take in entries of the driver's performance log."""
        for entry in entries:
            event = json.loads(entry["message"])["message"]
            domain, _, name = event["method"].partition(".")
            if domain == "Network" and (handle := _HANDLERS.get(name)) is not None:
                handle(self, event["params"])

    def _sent(self, event: Mapping[str, Any]) -> None:
        if (redirected := event.get("redirectResponse")) is not None:
            self._responded({"requestId": event["requestId"], "response": redirected})
            self._add_bytes(event["requestId"], redirected["encodedDataLength"])
        request = Request(event["request"]["method"], event["request"]["url"], event.get("type", "Other"))
        self.requests.append(request)
        self._by_id[event["requestId"]] = request

    def _socket(self, event: Mapping[str, Any]) -> None:
        self.requests.append(Request("GET", event["url"], "WebSocket"))

    def _responded(self, event: Mapping[str, Any]) -> None:
        if (request := self._by_id.get(event["requestId"])) is not None:
            response = event["response"]
            request.status, request.type = response["status"], response["mimeType"]
            request.headers = {name.lower(): value for name, value in response["headers"].items()}

    def _received(self, event: Mapping[str, Any]) -> None:
        self._add_bytes(event["requestId"], event["encodedDataLength"])

    def _finished(self, event: Mapping[str, Any]) -> None:
        if (request := self._by_id.get(event["requestId"])) is not None:
            request.bytes = event["encodedDataLength"]  # with the headers
            request.is_ended = True

    def _failed(self, event: Mapping[str, Any]) -> None:
        if (request := self._by_id.get(event["requestId"])) is not None:
            request.failed = event["errorText"]
            request.is_ended = True

    def _add_bytes(self, id_: str, number: int) -> None:
        if (request := self._by_id.get(id_)) is not None:
            request.bytes += number


_HANDLERS = {
    "webSocketCreated": Network._socket,
    "requestWillBeSent": Network._sent,
    "responseReceived": Network._responded,
    "dataReceived": Network._received,
    "loadingFinished": Network._finished,
    "loadingFailed": Network._failed,
}
