"""Tokens of the HTTP API: their scopes, and how they are verified by their hash."""

import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict

_PREFIX = "deviceops_"
_BYTES = 32
"""Random bytes of a token: with that many, a fast hash is as safe as a slow one."""


class Scope(StrEnum):
    """The permissions of a token."""

    READ_OPERATION = "read:operation"
    READ_DEVICE = "read:device"
    UPDATE_OPERATION = "update:operation"
    ADMIN_DEAD_LETTERS = "admin:dead-letters"


def _sha256(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        raise ValueError("expected 64 hexadecimal digits, as `deviceops token create` prints them")
    return text


class Token(BaseModel):
    """A token's scopes and hash, without the token itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scopes: frozenset[Scope]
    hash: Annotated[str, AfterValidator(_sha256)]
    """SHA-256 of the token in hexadecimal."""


class Caller(NamedTuple):
    """The name of a token, and its scopes."""

    name: str
    scopes: frozenset[Scope]


def create(scopes: frozenset[Scope]) -> tuple[str, Token]:
    """A new token: its text, to be shown once, and its scopes and hash, to be stored."""
    text = _PREFIX + secrets.token_urlsafe(_BYTES)
    return text, Token(scopes=scopes, hash=_hash(text))


def find(tokens: Mapping[str, Token], text: str) -> Caller | None:
    """The token with this text, None if there is none; in constant time."""
    hashed = _hash(text)
    found = None
    for name, token in tokens.items():
        if compare_digest(token.hash, hashed):
            found = Caller(name, token.scopes)
    return found


def _hash(text: str) -> str:
    return sha256(text.encode(errors="surrogateescape")).hexdigest()
