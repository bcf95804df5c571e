"""The messages that webhooks receive, and their signatures: Standard Webhooks 1.0."""

import hmac
import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from pydantic import SecretStr
from pydantic_core import to_json

from worker.config.webhooks import SECRET_PREFIX, key_of

TEST_TYPE = "webhook.test"
"""Type of the message that `deviceops webhooks test` sends."""
_NEW_SECRET = 32
"""Bytes."""
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


class Message(NamedTuple):
    """What is sent, the same at each attempt but for the signature and its time."""

    id: UUID
    body: bytes


def of_change(id_: UUID, type_: str, recorded_at: int, payload: str) -> Message:
    """The message of a change that was written at a moment, in milliseconds since 1970."""
    at = _FIRST + timedelta(milliseconds=recorded_at)
    timestamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Message(id_, f'{{"type":"{type_}","timestamp":"{timestamp}","data":{payload}}}'.encode())


def of_test(name: str) -> Message:
    """A message to try a webhook out."""
    now = round(datetime.now(UTC).timestamp() * 1_000)
    return of_change(uuid4(), TEST_TYPE, now, to_json({"webhook": name}).decode())


def headers(message: Message, keys: Iterable[SecretStr], now: float) -> Mapping[str, str]:
    """The headers of an attempt: receivers refuse a timestamp that is minutes old, so each attempt has its own."""
    timestamp = str(int(now))
    signed = f"{message.id}.{timestamp}.".encode() + message.body
    return {
        "content-type": "application/json",
        "user-agent": "deviceops",
        "webhook-id": str(message.id),
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(key_of(key), signed) for key in keys),
    }


def new_secret() -> str:
    """A secret for a webhook and its receiver."""
    return SECRET_PREFIX + b64encode(secrets.token_bytes(_NEW_SECRET)).decode()


def _signature(key: bytes, signed: bytes) -> str:
    return f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode()}"
