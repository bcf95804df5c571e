"""CloudEvents 1.0, structured and binary, as messages."""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from worker.model.compression import Unreadable
from worker.model.identity import body_id
from worker.model.timestamps import as_moment

STRUCTURED = "application/cloudevents+json"
PREFIXES = ("cloudEvents:", "cloudEvents_", "ce-")
"""Prefixes of headers: AMQP's binding, its variant for clients that reject a colon, and HTTP's."""
_REQUIRED = ("id", "source", "type")


@dataclass(frozen=True, slots=True)
class Event:
    """The attributes of a CloudEvent that a message has."""

    type: str
    id: str
    time: datetime | None
    body: bytes


def read_event(body: bytes, content_type: object, headers: Mapping[str, Any]) -> Event | None:
    """A message's CloudEvent, None if it is not one. Raises Unreadable."""
    if isinstance(content_type, str) and content_type.partition(";")[0].strip().lower() == STRUCTURED:
        return _structured(body)
    for prefix in PREFIXES:
        if f"{prefix}specversion" in headers:
            given = {
                name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)
            }
            attributes = {name: _text(value) for name, value in given.items()}
            return _event(attributes, body)
    return None


def _structured(body: bytes) -> Event | None:
    try:
        document = from_json(body)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    data = document.get("data")
    if data is None and isinstance(encoded := document.get("data_base64"), str):
        try:
            return _event(document, b64decode(encoded, validate=True))
        except ValueError:
            raise Unreadable("data_base64: is no base64") from None
    content = data.encode() if isinstance(data, str) else to_json(data, inf_nan_mode="constants")
    return _event(document, b"" if data is None else content)


def _event(attributes: Mapping[str, Any], body: bytes) -> Event | None:
    named = [attributes.get(name) for name in _REQUIRED]
    if attributes.get("specversion") != "1.0" or not all(isinstance(value, str) and value for value in named):
        return None
    id_, source, type_ = map(str, named)
    time = attributes.get("time")
    try:
        at = time if isinstance(time, datetime) else as_moment(time)
    except ValueError:
        at = None
    return Event(type_, _identity(source, id_), at, body)


def _identity(source: str, id_: str) -> str:
    """Source and id in one text; a source has no spaces (RFC 3986), so that it is unique."""
    together = f"{source} {id_}"
    return body_id(repr((source, id_)).encode()) if " " in source else together


def _text(value: object) -> object:
    return bytes(value).decode(errors="surrogateescape") if isinstance(value, bytes | bytearray) else value
